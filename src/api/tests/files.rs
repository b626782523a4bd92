//! Files: sent before a run, stored by a run, listed, sent back.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::runs::send_form;
use super::support::{Bench, OTHER};

#[tokio::test]
async fn what_was_uploaded_is_found_by_path_and_by_id() {
    let bench = Bench::new().await;
    let parts = [("files", Some("a.md"), &b"one"[..]), ("files", Some("dir/a.md"), b"two")];
    let sent = send_form(&bench, &bench.team, "/api/v1/sandbox/upload", &parts).await;
    assert_eq!(sent.status, 200, "{sent:?}");
    let sent = sent.json();
    assert_eq!(sent["count"], 2);
    let batch = sent["upload_id"].as_str().unwrap();
    let folder = format!("team/_sandbox_uploads/{batch}");
    assert_eq!(sent["file_paths"], json!([format!("{folder}/a.md"), format!("{folder}/a-2.md")]));
    let file = bench.ask(&bench.team, "GET", &format!("/api/v1/file/{folder}/a-2.md"), "").await;
    assert_eq!((file.text.as_str(), file.header("content-type")), ("two", "text/markdown"));

    let parts = [("file", Some("b.csv"), &b"1,2"[..]), ("purpose", None, b"assistants")];
    let made = send_form(&bench, &bench.team, "/v1/files", &parts).await.json();
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made,
        json!({
            "id": id, "object": "file", "bytes": 3, "created_at": 1_767_225_600,
            "filename": "b.csv", "purpose": "assistants", "status": "processed",
        })
    );
    let content = bench.ask(&bench.team, "GET", &format!("/api/v1/files/{id}/content"), "").await;
    assert_eq!(content.text, "1,2");
    let listed = bench.ask(&bench.team, "GET", "/v1/files", "").await.json();
    assert!(listed["data"].as_array().unwrap().iter().any(|file| file["id"] == id), "{listed}");
    let foreign = bench.ask(&bench.other, "GET", &format!("/api/v1/files/{id}"), "").await;
    assert_eq!(foreign.status, 404);
    let gone = bench.ask(&bench.team, "DELETE", &format!("/api/v1/files/{id}"), "").await;
    assert_eq!(gone.json(), json!({"id": id, "object": "file", "deleted": true}));
    let gone = bench.ask(&bench.team, "GET", &format!("/api/v1/files/{id}"), "").await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn an_upload_without_a_file_or_too_large_leaves_nothing() {
    let bench = Bench::new().await;
    let path = "/api/v1/sandbox/upload";
    let none = send_form(&bench, &bench.team, path, &[]).await;
    assert_eq!(none.status, 422, "{none:?}");
    let wrong = send_form(&bench, &bench.team, path, &[("file", Some("a"), b"x")]).await;
    assert_eq!(wrong.status, 422);
    let large = vec![7; 5 << 20];
    let large = [("files", Some("ok"), &b"x"[..]), ("files", Some("large"), &large)];
    let large = send_form(&bench, &bench.team, path, &large).await;
    assert_eq!(large.status, 413, "{large:?}");
    let admin = send_form(&bench, &bench.admin, path, &[("files", Some("a"), b"x")]).await;
    assert_eq!(admin.status, 400, "{admin:?}");
    let kept = bench.ask(&bench.team, "GET", "/api/v1/list-files?prefix=team", "").await.json();
    assert_eq!(kept["files"], json!([]));
}

#[tokio::test]
async fn a_stored_file_is_sent_so_that_nothing_in_it_runs_and_nothing_else_is_reached() {
    let bench = Bench::new().await;
    let folder = bench.api.store.root().join("team/hello/x1/results");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("page ü\n.html"), "<script>alert(1)</script>").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    let get = async |path: &str| bench.ask(&bench.team, "GET", path, "").await;
    let page = get("/api/v1/file/team/hello/x1/results/page%20%C3%BC%0A.html").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert_eq!(page.header("content-type"), "text/html");
    assert_eq!(page.header("content-security-policy"), "sandbox; default-src 'none'");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(
        page.header("content-disposition"),
        "attachment; filename=\"page __.html\"; filename*=UTF-8''page%20%C3%BC%0A.html"
    );
    for path in [
        "team/hello/x1/results/link",
        "team/hello/x1/results",
        "team/hello/x1/../x1/results/none",
        "team/hello/x1/results/%2e%2e/%2e%2e",
        "team//hello",
    ] {
        let answer = get(&format!("/api/v1/file/{path}")).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    let foreign = get(&format!("/api/v1/file/{OTHER}/hello/x1/results/none")).await;
    assert_eq!(foreign.status, 403);
    let request = Request::get("/api/v1/file/team/hello/x1/results/page%20%C3%BC%0A.html")
        .header("authorization", format!("Bearer {}", bench.team.expose()))
        .header("range", "bytes=1-6")
        .body(Body::empty());
    let part = bench.send(request.unwrap()).await;
    assert_eq!((part.status, part.text.as_str()), (206, "script"));
    assert_eq!(part.header("content-range"), "bytes 1-6/25");
}

#[tokio::test]
async fn files_are_listed_within_ones_own_collection() {
    let bench = Bench::new().await;
    for path in ["team/hello/x1/results", "team/hello/x2"] {
        let folder = bench.api.store.root().join(path);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("out.md"), "12").unwrap();
    }
    for prefix in ["team/hello", "team/hello/0000", "team/hello/x"] {
        let path = format!("/api/v1/list-files?prefix={prefix}");
        let listed = bench.ask(&bench.team, "GET", &path, "").await.json();
        let paths: Vec<&str> = listed["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["path"].as_str().unwrap())
            .collect();
        assert_eq!(paths, ["team/hello/x1/results/out.md", "team/hello/x2/out.md"], "{prefix}");
    }
    let long = "n".repeat(300);
    for prefix in [format!("team/{long}"), format!("team/hello/{long}/x")] {
        let path = format!("/api/v1/list-files?prefix={prefix}");
        let listed = bench.ask(&bench.team, "GET", &path, "").await;
        assert_eq!((listed.status, &listed.json()["files"]), (200, &json!([])), "{listed:?}");
        let file = bench.ask(&bench.team, "GET", &format!("/api/v1/file/{prefix}"), "").await;
        assert_eq!(file.status, 404, "{file:?}");
    }
    let foreign = bench.ask(&bench.team, "GET", "/api/v1/list-files?prefix=other-team/x", "").await;
    assert_eq!(foreign.status, 403);
    let bad = bench.ask(&bench.team, "GET", "/api/v1/list-files?prefix=../", "").await;
    assert_eq!(bad.status, 422);
}

#[tokio::test]
async fn a_runs_files_come_as_one_archive_without_its_links() {
    let bench = Bench::new().await;
    let body = r#"{"trajectory_id": "x1", "input": 1, "output": 2}"#;
    let made = bench.ask(&bench.team, "POST", "/api/v1/trajectories/team/t/ingest", body).await;
    assert_eq!(made.status, 200, "{made:?}");
    let folder = bench.api.store.root().join("team/t/x1/results");
    let large: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 9) as u8).collect();
    std::fs::write(folder.join("large.bin"), &large).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    let request = Request::get("/api/v1/trajectory/team/t/x1/download")
        .header("authorization", format!("Bearer {}", bench.team.expose()))
        .body(Body::empty());
    let zip = bench.send_bytes(request.unwrap()).await;
    let to = tempfile::tempdir().unwrap();
    let limits = crate::archive::UnpackLimits::INPUTS;
    let zip = std::io::Cursor::new(zip);
    let members = crate::archive::extract(zip, to.path(), &limits, &|| true).unwrap();
    let paths: Vec<&str> = members.iter().map(|member| member.path.as_str()).collect();
    assert_eq!(paths, ["results/large.bin", "trajectory.json"]);
    assert_eq!(std::fs::read(to.path().join("results/large.bin")).unwrap(), large);
}
