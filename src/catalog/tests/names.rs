//! Collections and tasks: names, settings, what a patch changes.

use super::*;

#[tokio::test]
async fn a_collection_is_found_in_any_case_and_made_once() {
    let Scene { catalog, .. } = &Scene::new().await;
    let made = catalog.create_collection("My_Team-1", Some("ours"), at(0)).await.unwrap();
    let expected = Collection {
        name: Slug::new("my_team-1").unwrap(),
        number: 1,
        description: Some("ours".to_owned()),
        concurrency: None,
        redacted_param_keys: vec![],
        created: at(0),
    };
    assert_eq!(made, expected);
    assert_eq!(catalog.collection("MY_TEAM-1").await.unwrap(), expected);
    assert_eq!(
        said(catalog.create_collection("my_team-1", None, at(1)).await),
        "the collection `my_team-1` exists already"
    );
    assert_eq!(catalog.ensure_collection("MY_team-1", at(1)).await.unwrap(), expected);
    assert_eq!(catalog.ensure_collection("second", at(1)).await.unwrap().created, at(1));
    assert_eq!(said(catalog.collection("third").await), "there is no collection `third`");
    let names: Vec<String> = (catalog.collections(EVERYTHING).await.unwrap().iter())
        .map(|collection| collection.name.to_string())
        .collect();
    assert_eq!(names, ["my_team-1", "second"]);
    let second = catalog.collections(Page { skip: 1, limit: 1 }).await.unwrap();
    assert_eq!(second[0].name.as_str(), "second");
}

#[tokio::test]
async fn names_against_the_rule_are_refused() {
    let Scene { catalog, .. } = &Scene::new().await;
    for name in
        ["ab", "", "a b c", "über", "a/b", "../up", ".abc", "a.b", &"x".repeat(49), "K\u{212a}k"]
    {
        let refused = catalog.ensure_collection(name, at(0)).await;
        assert!(matches!(refused, Err(CatalogError::Invalid { .. })), "{name:?}: {refused:?}");
    }
    for name in ["abc", "a-b_c", "123", &"x".repeat(48)] {
        assert!(catalog.ensure_collection(name, at(0)).await.is_ok(), "{name:?}");
    }
}

#[tokio::test]
async fn settings_are_changed_one_by_one_and_survive_a_restart() {
    let scene = Scene::with_task().await;
    let patch = CollectionPatch {
        concurrency: Some(Some(3)),
        redacted_param_keys: Some(vec!["api_key".to_owned()]),
        ..CollectionPatch::default()
    };
    let changed = scene.catalog.update_collection(&team(), patch).await.unwrap();
    let patch =
        CollectionPatch { description: Some(Some("x".to_owned())), ..CollectionPatch::default() };
    let described = scene.catalog.update_collection(&team(), patch).await.unwrap();
    assert_eq!(described, Collection { description: Some("x".to_owned()), ..changed });
    let scene = scene.restart().await;
    assert_eq!(scene.catalog.collection("team").await.unwrap(), described);
    assert_eq!(scene.catalog.concurrency_limits().await.unwrap(), [(team(), 3)].into());
    let none = CollectionPatch { concurrency: Some(Some(0)), ..CollectionPatch::default() };
    assert!(said(scene.catalog.update_collection(&team(), none).await).contains("at least 1"));
}

#[tokio::test]
async fn a_removed_collection_takes_everything_of_it_along() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let scope = Scope::Collection(team());
    let (_, token) = catalog.create_token(&scope, "ci", at(0)).await.unwrap();
    catalog.patch_environment(&team(), &object(json!({"A": "x"})), at(0)).await.unwrap();
    catalog.delete_collection(&team()).await.unwrap();
    assert_eq!(said(catalog.delete_collection(&team()).await), "there is no collection `team`");
    assert_eq!(catalog.authenticate(token.expose(), at(1)).await.unwrap(), Authentication::Refused);
    let again = catalog.ensure_collection("team", at(1)).await.unwrap();
    assert_eq!(again.number, 2, "a number is never given twice");
    assert_eq!(catalog.environment_names(&team()).await.unwrap(), [""; 0]);
    assert_eq!(catalog.tasks(&team(), EVERYTHING).await.unwrap(), []);
}

#[tokio::test]
async fn a_task_is_found_in_any_case_and_keeps_its_spelling() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let expected = Task {
        collection: team(),
        name: Slug::new("Report").unwrap(),
        number: 1,
        description: String::new(),
        workflow: workflow().document().clone(),
        flags: TaskFlags { is_private: true, is_chat_flow: false, has_file_uploads: false },
        version: None,
        croissant_metadata: None,
        created: at(0),
        updated: None,
    };
    assert_eq!(catalog.task(&team(), "rePORT").await.unwrap(), expected);
    let twin = NewTask::new("REPORT", workflow());
    assert_eq!(
        said(catalog.create_task(&team(), twin.clone(), at(1)).await),
        "the task `REPORT` exists already"
    );
    assert_eq!(catalog.ensure_task(&team(), twin, at(1)).await.unwrap(), expected);
    assert_eq!(said(catalog.task(&team(), "other").await), "there is no task `other`");
    let elsewhere = Slug::new("elsewhere").unwrap();
    assert_eq!(
        said(catalog.create_task(&elsewhere, NewTask::new("a", workflow()), at(1)).await),
        "there is no collection `elsewhere`"
    );
    assert!(
        said(catalog.create_task(&team(), NewTask::new("a/b", workflow()), at(1)).await)
            .contains("is not a usable name")
    );
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let old = catalog.task(&team(), "report").await.unwrap();
    let patch = TaskPatch {
        name: Some("report".to_owned()),
        is_private: Some(false),
        croissant_metadata: Some(json!({"b": 1, "a": [2]})),
        ..TaskPatch::default()
    };
    let changed = catalog.update_task(&team(), "REPORT", patch, at(5)).await.unwrap();
    let expected = Task {
        flags: TaskFlags { is_private: false, ..old.flags },
        croissant_metadata: Some(json!({"b": 1, "a": [2]})),
        updated: Some(at(5)),
        ..old
    };
    assert_eq!(changed, expected);
    assert_eq!(catalog.task(&team(), "report").await.unwrap(), expected);
    let chat = TaskPatch { workflow: Some(Workflow::of_chat_task()), ..TaskPatch::default() };
    let changed = catalog.update_task(&team(), "report", chat, at(6)).await.unwrap();
    assert_eq!(&changed.workflow, Workflow::of_chat_task().document());
    let rename = TaskPatch { name: Some("other".to_owned()), ..TaskPatch::default() };
    assert!(
        said(catalog.update_task(&team(), "report", rename, at(7)).await)
            .contains("cannot be renamed to `other`")
    );
    let missing = catalog.update_task(&team(), "none", TaskPatch::default(), at(7)).await;
    assert_eq!(said(missing), "there is no task `none`");
    catalog.delete_task(&team(), "REPORT").await.unwrap();
    assert_eq!(said(catalog.delete_task(&team(), "report").await), "there is no task `report`");
}

#[tokio::test]
async fn tasks_are_listed_by_name_and_in_parts() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    for name in ["b", "A", "c"] {
        catalog.create_task(&team(), NewTask::new(name, workflow()), at(0)).await.unwrap();
    }
    let names = async |skip, limit| -> Vec<String> {
        let page = catalog.tasks(&team(), Page { skip, limit }).await.unwrap();
        page.iter().map(|task| task.name.to_string()).collect()
    };
    assert_eq!(names(0, 100).await, ["A", "b", "c", "Report"]);
    assert_eq!(names(1, 2).await, ["b", "c"]);
    assert_eq!(names(9, 2).await, [""; 0]);
    assert_eq!(names(0, u64::MAX).await.len(), 4);
}

#[tokio::test]
async fn many_at_once_make_one_collection_and_one_task() {
    let Scene { catalog, .. } = &Scene::new().await;
    let made = futures_util::future::join_all((0..20).map(|n| async move {
        let name = if n % 2 == 0 { "team" } else { "TEAM" };
        let collection = catalog.ensure_collection(name, at(n)).await.unwrap();
        let task = NewTask::new("t", workflow());
        (collection.number, catalog.ensure_task(&team(), task, at(n)).await.unwrap().number)
    }))
    .await;
    assert!(made.iter().all(|numbers| *numbers == made[0]), "{made:?}");
    assert_eq!(catalog.collections(EVERYTHING).await.unwrap().len(), 1);
}
