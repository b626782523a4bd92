//! Every path of the API against the tokens of other collections. The paths come from the router's
//! own description, so a new one cannot be forgotten.

use serde_json::Value;

use super::support::{Answer, Bench, OTHER, TEAM};

/// Paths that anybody may ask.
const OPEN: [&str; 5] = [
    "/api/v1/health",
    "/healthz",
    "/readyz",
    "/api/v1/step-templates",
    "/api/v1/step-templates/{name}",
];

/// Every method and path of the description.
fn routes(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let routes = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    routes.collect()
}

/// The path with the collection named and every other segment made up.
fn filled(path: &str, collection: &str) -> String {
    let segments = path.split('/').map(|segment| match segment {
        "{collection}" => collection,
        named if named.starts_with('{') => "1",
        fixed => fixed,
    });
    segments.collect::<Vec<_>>().join("/")
}

fn detail(answer: &Answer) -> String {
    answer.json()["detail"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn every_path_with_a_collection_is_closed_to_other_collections_and_hides_what_is_not_there() {
    let bench = Bench::new().await;
    let document = bench.get("/openapi.json").await.json();
    let mut n_checked = 0;
    for (method, path) in routes(&document) {
        if !path.contains("{collection}") {
            continue;
        }
        n_checked += 1;
        let ask = async |collection: &str, token| {
            bench.ask(token, &method, &filled(&path, collection), "{}").await
        };
        let foreign = ask(TEAM, &bench.other).await;
        let unknown = ask("nowhere", &bench.other).await;
        for answer in [&foreign, &unknown] {
            assert_eq!(
                (answer.status, detail(answer).as_str()),
                (403, "API key not valid for this collection"),
                "{method} {path}"
            );
        }
        let admin = ask("nowhere", &bench.admin).await;
        assert_eq!(admin.status, 404, "{method} {path}: {admin:?}");
        assert!(detail(&admin).starts_with("Collection"), "{method} {path}: {admin:?}");
        let own = ask(OTHER, &bench.other).await;
        assert!(
            own.status != 403 || detail(&own).contains("admin token"),
            "{method} {path}: {own:?}"
        );
    }
    assert!(n_checked > 10, "the description has too few paths: {n_checked}");
}

#[tokio::test]
async fn every_path_but_the_open_ones_wants_a_token() {
    let bench = Bench::new().await;
    let document = bench.get("/openapi.json").await.json();
    for (method, path) in routes(&document) {
        let request = axum::http::Request::builder()
            .method(method.as_str())
            .uri(filled(&path, TEAM))
            .body(axum::body::Body::from("{}"));
        let answer = bench.send(request.unwrap()).await;
        let is_open = OPEN.contains(&path.as_str());
        assert_eq!(answer.status != 401, is_open, "{method} {path}: {answer:?}");
        let declared = &document["paths"][&path][method.to_lowercase()]["security"];
        let says_open =
            declared.as_array().is_some_and(|list| list.contains(&serde_json::json!({})));
        assert_eq!(says_open, is_open, "{method} {path} declares {declared}");
    }
}

#[tokio::test]
async fn nothing_of_another_collection_is_found_under_ones_own_name() {
    let bench = Bench::new().await;
    let task = r#"{"name": "hidden", "workflow": {"init_params": {}, "step_configs": {"run": {"activity": "runbook", "instruction": "Do."}}, "steps": ["run"]}}"#;
    let made = bench.ask(&bench.team, "POST", "/api/v1/tasks/team", task).await;
    assert_eq!(made.status, 201, "{made:?}");
    for (method, path) in [
        ("GET", "/api/v1/tasks/other-team/hidden"),
        ("PUT", "/api/v1/tasks/other-team/hidden"),
        ("DELETE", "/api/v1/tasks/other-team/hidden"),
    ] {
        let answer = bench.ask(&bench.other, method, path, "{}").await;
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
    }
    let list = bench.ask(&bench.other, "GET", "/api/v1/tasks/other-team", "").await;
    assert_eq!(list.text, "[]");
}
