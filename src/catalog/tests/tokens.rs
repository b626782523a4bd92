//! Who gets in, and with what.

use std::collections::BTreeSet;

use super::*;

async fn is_accepted(catalog: &Catalog, text: &str) -> bool {
    matches!(catalog.authenticate(text, at(0)).await.unwrap(), Authentication::Accepted(_))
}

#[tokio::test]
async fn a_token_is_shown_once_and_opens_its_scope() {
    let scene = Scene::with_task().await;
    let scope = Scope::Collection(team());
    let (made, token) = scene.catalog.create_token(&scope, "ci", at(0)).await.unwrap();
    let text = token.expose();
    assert_eq!(text.len(), 36);
    assert_eq!(made.prefix, text[..8]);
    assert_eq!((made.number, made.is_active, made.last_used), (1, true, None));
    assert!(made.scope.opens(&team()));
    assert!(!made.scope.opens(&Slug::new("other").unwrap()));
    let scene = scene.restart().await;
    let used = Token { last_used: Some(at(3)), ..made };
    assert_eq!(
        scene.catalog.authenticate(text, at(3)).await.unwrap(),
        Authentication::Accepted(used.clone())
    );
    assert_eq!(scene.catalog.tokens(Some(&scope)).await.unwrap(), [used]);
    assert_eq!(scene.catalog.tokens(Some(&Scope::Admin)).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_refused() {
    let Scene { catalog, .. } = &Scene::new().await;
    let (_, token) = catalog.create_token(&Scope::Admin, "root", at(0)).await.unwrap();
    let text = token.expose();
    let last = if text.ends_with('a') { 'b' } else { 'a' };
    let same_prefix = format!("{}{last}", &text[..35]);
    for (text, expected) in [
        (same_prefix.as_str(), Authentication::Refused),
        ("mlc_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Authentication::Refused),
        ("", Authentication::Malformed),
        ("mlc_", Authentication::Malformed),
        ("mlc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Authentication::Malformed),
        ("mlc_\u{e9}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Authentication::Malformed),
        (&text[..35], Authentication::Malformed),
        (&format!("{text}a"), Authentication::Malformed),
        (&text.to_uppercase(), Authentication::Malformed),
    ] {
        assert_eq!(catalog.authenticate(text, at(0)).await.unwrap(), expected, "{text:?}");
    }
    assert!(is_accepted(catalog, text).await);
}

#[tokio::test]
async fn a_token_that_is_switched_off_or_removed_opens_nothing() {
    let Scene { catalog, .. } = &Scene::new().await;
    let (made, token) = catalog.create_token(&Scope::Admin, "root", at(0)).await.unwrap();
    let switch = |on| TokenPatch { is_active: Some(on), ..TokenPatch::default() };
    catalog.update_token(made.number, switch(false)).await.unwrap();
    assert!(!is_accepted(catalog, token.expose()).await);
    catalog.update_token(made.number, switch(true)).await.unwrap();
    assert!(is_accepted(catalog, token.expose()).await);
    catalog.delete_token(made.number).await.unwrap();
    assert!(!is_accepted(catalog, token.expose()).await);
    assert_eq!(said(catalog.delete_token(made.number).await), "there is no API key `1`");
}

#[tokio::test]
async fn a_name_is_unique_in_its_scope() {
    let Scene { catalog, .. } = &Scene::with_task().await;
    let scope = Scope::Collection(team());
    catalog.create_token(&scope, "ci", at(0)).await.unwrap();
    let (admin, _) = catalog.create_token(&Scope::Admin, "ci", at(0)).await.unwrap();
    assert_eq!(
        said(catalog.create_token(&scope, "ci", at(0)).await),
        "the API key `ci` exists already"
    );
    let (other, _) = catalog.create_token(&scope, "other", at(0)).await.unwrap();
    let rename = |name: &str| TokenPatch { name: Some(name.to_owned()), is_active: None };
    let taken = catalog.update_token(other.number, rename("ci")).await;
    assert!(matches!(taken, Err(CatalogError::Exists { what: Kind::Token, .. })), "{taken:?}");
    assert_eq!(catalog.update_token(other.number, rename("new")).await.unwrap().name, "new");
    assert_eq!(catalog.update_token(admin.number, rename("ci")).await.unwrap(), admin);
    assert!(said(catalog.create_token(&scope, " ", at(0)).await).contains("needs a name"));
    let missing = Scope::Collection(Slug::new("missing").unwrap());
    assert_eq!(
        said(catalog.create_token(&missing, "a", at(0)).await),
        "there is no collection `missing`"
    );
}

#[tokio::test]
async fn the_last_use_is_noted_to_the_minute() {
    let Scene { catalog, .. } = &Scene::new().await;
    let (made, token) = catalog.create_token(&Scope::Admin, "root", at(0)).await.unwrap();
    for (now, noted) in [(10, 10), (40, 10), (69, 10), (70, 70), (20, 70), (500, 500)] {
        catalog.authenticate(token.expose(), at(now)).await.unwrap();
        let last = catalog.token(made.number).await.unwrap().last_used;
        assert_eq!(last, Some(at(noted)), "used at {now}");
    }
}

#[tokio::test]
async fn tokens_differ_and_use_the_whole_alphabet() {
    let Scene { catalog, .. } = &Scene::new().await;
    let mut tokens = BTreeSet::new();
    let mut letters = BTreeSet::new();
    for n in 0..60 {
        let (_, token) = catalog.create_token(&Scope::Admin, &n.to_string(), at(0)).await.unwrap();
        letters.extend(token.expose()[4..].chars());
        tokens.insert(token.expose().to_owned());
    }
    assert_eq!(tokens.len(), 60);
    // Of 1920 fair draws, one of 36 letters is missing once in 10^22.
    assert_eq!(letters.len(), 36);
}
