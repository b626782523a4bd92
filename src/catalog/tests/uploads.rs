//! Who names an uploaded file.

use super::*;

#[tokio::test]
async fn an_upload_is_named_by_a_task_of_its_own_collection() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    catalog.create_collection("other", None, at(0)).await.unwrap();
    let digits = "0123456789abcdef01234567";
    let workflow = json!({
        "init_params": {"instruction": "# Read it\n", "files": [format!("file-{digits}")]},
        "step_configs": {"run": {"activity": "runbook"}},
        "steps": ["run"],
    });
    let task = NewTask::new("Reader", Workflow::parse(&workflow).unwrap());
    catalog.create_task(&team(), task, at(1)).await.unwrap();
    let other = Slug::new("other").unwrap();
    let asked = [(team(), digits), (team(), "fedcba9876543210"), (other, digits)];
    let mut named = Vec::new();
    for (collection, digits) in asked {
        named.push(catalog.is_named(&collection, digits).await.unwrap());
    }
    assert_eq!(named, [true, false, false]);
}
