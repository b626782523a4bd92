//! One form of every path: the public clients write slashes as they come.

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use tower::ServiceBuilder;

/// The pages' assets are relative to this folder, so its slash stays.
const KEEPS_ITS_SLASH: &str = "/docs/";

/// The same router behind paths in one form. A redirect would not do: clients drop a multipart body
/// on the way.
pub(super) fn normalized(router: Router) -> Router {
    Router::new()
        .fallback_service(ServiceBuilder::new().map_request(with_normal_path).service(router))
}

fn with_normal_path(mut request: Request) -> Request {
    if let Some(normal) = normal(request.uri().path()) {
        let whole = match request.uri().query() {
            Some(query) => format!("{normal}?{query}"),
            None => normal.to_owned(),
        };
        let mut parts = request.uri().clone().into_parts();
        // A part of a path that was read as one is one.
        parts.path_and_query = whole.parse::<PathAndQuery>().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The path with one slash before and none behind; `None` when it is so already.
fn normal(path: &str) -> Option<&str> {
    let n_leading = path.bytes().take_while(|&byte| byte == b'/').count();
    let from_last_slash = path.get(n_leading.saturating_sub(1)..).unwrap_or(path);
    let trimmed = if from_last_slash.starts_with(KEEPS_ITS_SLASH) {
        from_last_slash
    } else {
        from_last_slash.trim_end_matches('/')
    };
    let normal = if trimmed.is_empty() { "/" } else { trimmed };
    (normal != path).then_some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_before_and_behind_do_not_matter() {
        for (path, expected) in [
            ("/", None),
            ("//", Some("/")),
            ("/api/v1/health", None),
            ("//api/v1/health", Some("/api/v1/health")),
            ("///api/v1/collections//", Some("/api/v1/collections")),
            ("/api/v1/tasks/c/", Some("/api/v1/tasks/c")),
            ("/api/v1/tasks/a%2Fb/", Some("/api/v1/tasks/a%2Fb")),
            ("/api/v1/file/c//x", None),
            ("/docs/", None),
            ("//docs/", Some("/docs/")),
        ] {
            assert_eq!(normal(path), expected, "{path}");
        }
    }

    #[test]
    fn the_query_stays() {
        let request = Request::builder().uri("//a/?q=%2F/").body(axum::body::Body::empty());
        assert_eq!(with_normal_path(request.unwrap()).uri(), "/a?q=%2F/");
    }
}
