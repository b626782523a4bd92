//! What a patch does to an environment, and who can read it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

async fn values(catalog: &Catalog) -> BTreeMap<String, String> {
    let values = catalog.environment(&team()).await.unwrap();
    values.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect()
}

#[tokio::test]
async fn a_patch_sets_and_removes_and_leaves_the_rest() {
    let scene = Scene::with_task().await;
    let patch = async |catalog: &Catalog, patch| {
        catalog.patch_environment(&team(), &object(patch), at(0)).await.unwrap()
    };
    let names =
        patch(&scene.catalog, json!({"KEY": "sk-ant-made-up-1", "B": "", "C": "x\ny"})).await;
    assert_eq!(names, ["B", "C", "KEY"]);
    assert_eq!(
        patch(&scene.catalog, json!({"C": null, "D": "1", "not there": null})).await,
        ["B", "D", "KEY"]
    );
    assert_eq!(patch(&scene.catalog, json!({})).await, ["B", "D", "KEY"]);
    let scene = scene.restart().await;
    let expected = [("B", ""), ("D", "1"), ("KEY", "sk-ant-made-up-1")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(values(&scene.catalog).await, expected.into());
    scene.catalog.clear_environment(&team()).await.unwrap();
    assert_eq!(values(&scene.catalog).await, BTreeMap::new());
}

#[tokio::test]
async fn what_cannot_be_kept_is_named_and_nothing_of_the_patch_is_done() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let made_up = "sk-ant-made-up-2";
    for (patch, expected) in [
        (json!({"A": "1", "N": 5}), "`N` must be a text, or null to remove it"),
        (json!({"A": "1", "O": {"k": made_up}}), "`O` must be a text"),
        (json!({"A": "1", "1x": made_up}), "name `1x` is not usable"),
        (json!({"A": "1", "a-b": made_up}), "name `a-b` is not usable"),
        (json!({"A": "1", "Z": format!("{made_up}\0")}), "`Z` holds a NUL byte"),
        (
            json!({"A": "1", "L": "x".repeat(MAX_VALUE_BYTES + 1)}),
            "`L` has 65537 bytes: write at most 65536",
        ),
    ] {
        let error = said(catalog.patch_environment(&team(), &object(patch), at(0)).await);
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains(made_up), "{error}");
        assert_eq!(catalog.environment_names(&team()).await.unwrap(), [""; 0]);
    }
    let missing = Slug::new("missing").unwrap();
    let patch = object(json!({"A": "1"}));
    assert_eq!(
        said(catalog.patch_environment(&missing, &patch, at(0)).await),
        "there is no collection `missing`"
    );
}

#[tokio::test]
async fn the_values_together_have_a_limit() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let large = "x".repeat(MAX_VALUE_BYTES);
    let fits: Map<String, Value> =
        (0..7).map(|n| (format!("V{n}"), large.clone().into())).collect();
    catalog.patch_environment(&team(), &fits, at(0)).await.unwrap();
    let error =
        said(catalog.patch_environment(&team(), &object(json!({"V7": large})), at(0)).await);
    assert!(error.contains("524288 is the most"), "{error}");
    let swap = object(json!({"V0": null, "W0": large}));
    assert_eq!(catalog.patch_environment(&team(), &swap, at(0)).await.unwrap().len(), 7);
}

#[tokio::test]
async fn no_value_lies_readable_in_the_files() {
    let scene = Scene::with_task().await;
    let made_up = "sk-ant-made-up-at-rest";
    let patch = object(json!({ "KEY": made_up }));
    scene.catalog.patch_environment(&team(), &patch, at(0)).await.unwrap();
    let (_, token) = scene.catalog.create_token(&Scope::Admin, "root", at(0)).await.unwrap();
    scene.catalog.database.close().await.unwrap();
    for file in std::fs::read_dir(scene.folder.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for secret in [made_up, token.expose()] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret", path.display());
        }
    }
}

#[tokio::test]
async fn a_value_cannot_be_moved_to_another_name() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let patch = object(json!({"A": "made-up-a", "B": "made-up-b"}));
    catalog.patch_environment(&team(), &patch, at(0)).await.unwrap();
    let mut tx = catalog.database.write().await.unwrap();
    sqlx::query("UPDATE environment_variables SET name = 'C' WHERE name = 'A'")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let error = catalog.environment(&team()).await.unwrap_err();
    assert!(matches!(error, CatalogError::Secret(_)), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn patches_do_what_they_do_to_a_map(
        patches in proptest::collection::vec(
            proptest::collection::btree_map(
                "[A-D]", proptest::option::of("[a-z\u{e9}\n]{0,6}"), 0..4),
            1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::with_task().await;
            let mut model = BTreeMap::new();
            for patch in patches {
                let json = patch.iter().map(|(name, value)| (name.clone(), json!(value)));
                let names =
                    scene.catalog.patch_environment(&team(), &json.collect(), at(0)).await.unwrap();
                for (name, value) in patch {
                    match value {
                        Some(value) => model.insert(name, value),
                        None => model.remove(&name),
                    };
                }
                assert_eq!(names, model.keys().cloned().collect::<Vec<_>>());
            }
            assert_eq!(values(&scene.catalog).await, model);
        });
    }
}
