//! What is known of uploaded files.

use uuid::Uuid;

use super::*;

fn drawn(n: u128) -> Uuid {
    Uuid::from_u128(n << 64)
}

fn new(key: UploadKey, name: &str) -> NewUpload {
    NewUpload { key, name: name.to_owned(), n_bytes: 5, media_type: "text/csv".to_owned() }
}

#[test]
fn a_key_is_what_it_is_written_as() {
    let file = UploadKey::file(drawn(0xabc));
    assert_eq!(file.to_string(), "file-0000000000000abc00000000");
    let sandbox = UploadKey::sandbox(&team(), drawn(0xabc << 16), "a b.csv").unwrap();
    assert_eq!(sandbox.to_string(), "team/_sandbox_uploads/000000000abc/a b.csv");
    for key in [file, sandbox] {
        assert_eq!(UploadKey::parse(&key.to_string()), Some(key));
    }
    for text in [
        "",
        "file-",
        "file-xyz",
        "file-0000000000000ABC00000000",
        "team/x/000000000abc/a",
        "team/_sandbox_uploads/000000000abc",
        "team/_sandbox_uploads/000000000abc/",
        "team/_sandbox_uploads/000000000abc/..",
        "team/_sandbox_uploads/000000000abc/a/b",
        "../_sandbox_uploads/000000000abc/a",
        "team/_sandbox_uploads/../a",
        "team/t/0000/r.md",
    ] {
        assert_eq!(UploadKey::parse(text), None, "{text:?}");
    }
    for name in ["", ".", "..", "a/b", "a\\b", "a\nb", &"x".repeat(201)] {
        assert!(UploadKey::sandbox(&team(), drawn(1), name).is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn a_file_is_found_in_its_collection_alone() {
    let scene = Scene::with_task().await;
    scene.catalog.create_collection("other", None, at(0)).await.unwrap();
    let other = Slug::new("other").unwrap();
    let key = UploadKey::file(drawn(1));
    let file =
        scene.catalog.record_upload(&team(), new(key.clone(), "a.csv"), at(1)).await.unwrap();
    let expected = Upload {
        key: key.clone(),
        collection: team(),
        name: "a.csv".to_owned(),
        n_bytes: 5,
        media_type: "text/csv".to_owned(),
        created: at(1),
    };
    assert_eq!(file, expected);
    let scene = scene.restart().await;
    let catalog = &scene.catalog;
    assert_eq!(catalog.upload(&team(), &key).await.unwrap(), expected);
    let missing = format!("there is no file `{key}`");
    assert_eq!(said(catalog.upload(&other, &key).await), missing);
    assert_eq!(said(catalog.delete_upload(&other, &key).await), missing);
    let twin = catalog.record_upload(&other, new(key.clone(), "b.csv"), at(2)).await;
    assert!(matches!(twin, Err(CatalogError::Exists { what: Kind::Upload, .. })), "{twin:?}");
    let foreign = UploadKey::sandbox(&other, drawn(2), "a.csv").unwrap();
    assert!(
        said(catalog.record_upload(&team(), new(foreign, "a.csv"), at(2)).await)
            .contains("does not belong to the collection `team`")
    );
    catalog.delete_upload(&team(), &key).await.unwrap();
    assert_eq!(said(catalog.upload(&team(), &key).await), missing);
}

#[tokio::test]
async fn files_are_listed_the_newest_first_and_given_up_the_oldest_first() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    for n in 1..=3 {
        let name = format!("{n}.csv");
        let key = UploadKey::sandbox(&team(), drawn(9), &name).unwrap();
        catalog.record_upload(&team(), new(key, &name), at(n)).await.unwrap();
    }
    let names = |uploads: Vec<Upload>| uploads.into_iter().map(|u| u.name).collect::<Vec<_>>();
    let page = catalog.uploads(&team(), Page { skip: 0, limit: 2 }).await.unwrap();
    assert_eq!(names(page), ["3.csv", "2.csv"]);
    let old = catalog.uploads_before(at(3), 10).await.unwrap();
    assert_eq!(names(old), ["1.csv", "2.csv"]);
    assert_eq!(names(catalog.uploads_before(at(9), 1).await.unwrap()), ["1.csv"]);
}
