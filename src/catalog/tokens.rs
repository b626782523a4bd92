//! API tokens: who may speak, and for which collection. Only a digest of a token is kept.

use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use subtle::ConstantTimeEq as _;
use tracing::warn;

use super::Catalog;
use super::error::{CatalogError, Kind};
use super::row::{Columns, next_number, number, unreadable};
use crate::run::{Slug, error_chain};
use crate::secret::Secret;

/// What every token begins with. Clients and secret scanners know it.
const PREFIX: &str = "mlc_";

/// Characters after the prefix: 32 of 36 kinds are 165 bits.
const N_RANDOM: usize = 32;

/// How many characters of a token are kept in the clear, so that a person recognises it.
const N_SHOWN: usize = 8;

/// The characters of a token.
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// How precise "last used" is. A write for every request would cost more than it tells.
const LAST_USED_GRAIN: SignedDuration = SignedDuration::from_secs(60);

/// The scope of an administrator, which no collection's name can be.
const EVERYTHING: &str = "*";

/// Longest name of a token, in bytes. It is for people, in lists.
const MAX_NAME_BYTES: usize = 256;

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The whole server.
    Admin,
    /// One collection.
    Collection(Slug),
}

impl Scope {
    /// Whether it opens this collection.
    #[must_use]
    pub fn opens(&self, collection: &Slug) -> bool {
        match self {
            Self::Admin => true,
            Self::Collection(own) => own == collection,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Admin => EVERYTHING,
            Self::Collection(name) => name.as_str(),
        }
    }
}

/// What is known of a token, which is not the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number on the wire.
    pub number: u64,
    /// What it opens.
    pub scope: Scope,
    /// What it is called, unique in its scope.
    pub name: String,
    /// Its first characters.
    pub prefix: String,
    /// Whether it opens anything now.
    pub is_active: bool,
    /// Since when it is.
    pub created: Timestamp,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
}

/// What to change about a token. `None` leaves a part as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenPatch {
    /// What it is called.
    pub name: Option<String>,
    /// Whether it opens anything.
    pub is_active: Option<bool>,
}

/// What a token turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// It is one of ours, and active.
    Accepted(Token),
    /// It does not look like a token at all.
    Malformed,
    /// It is unknown or switched off; which of them is nobody's business.
    Refused,
}

const ALL: &str = "SELECT * FROM api_tokens ORDER BY number";
const OF_SCOPE: &str = "SELECT * FROM api_tokens WHERE scope = $1 ORDER BY number";
const ONE: &str = "SELECT * FROM api_tokens WHERE number = $1";
const LIKELY: &str = "SELECT * FROM api_tokens WHERE prefix = $1 AND is_active = 1";
const INSERT: &str = "INSERT INTO api_tokens
    (number, scope, name, prefix, digest, is_active, created_at)
    VALUES ($1, $2, $3, $4, $5, 1, $6) ON CONFLICT (scope, name) DO NOTHING";
const UPDATE: &str = "UPDATE api_tokens SET name = $2, is_active = $3 WHERE number = $1";
const USED: &str = "UPDATE api_tokens SET last_used_at = $2 WHERE number = $1";
const DELETE: &str = "DELETE FROM api_tokens WHERE number = $1";
const NAMED: &str = "SELECT number FROM api_tokens WHERE scope = $1 AND name = $2";

impl Catalog {
    /// Makes a token. It is returned this once and cannot be read again.
    ///
    /// # Errors
    /// [`CatalogError::Exists`] when the scope has one of that name, [`CatalogError::Invalid`],
    /// [`CatalogError::NotFound`] when there is no such collection.
    pub async fn create_token(
        &self,
        scope: &Scope,
        name: &str,
        now: Timestamp,
    ) -> Result<(Token, Secret), CatalogError> {
        legal_name(name)?;
        let token = draw()?;
        let act = || CatalogError::act("make an API key");
        let mut tx = self.write().await?;
        if let Scope::Collection(collection) = scope {
            super::collections::one(&mut tx, collection.as_str()).await?;
        }
        let number = next_number(&mut tx, "token").await?;
        let inserted = sqlx::query(INSERT)
            .bind(number)
            .bind(scope.as_str())
            .bind(name)
            .bind(&token.expose()[..N_SHOWN])
            .bind(digest(token.expose()))
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        if inserted.rows_affected() == 0 {
            return Err(CatalogError::exists(Kind::Token, name));
        }
        let made = one(&mut tx, number).await?;
        tx.commit().await.map_err(act())?;
        Ok((made, token))
    }

    /// Whether a text is a token of ours that is active.
    ///
    /// # Errors
    /// When the database cannot be used; the caller must then refuse the request.
    pub async fn authenticate(
        &self,
        text: &str,
        now: Timestamp,
    ) -> Result<Authentication, CatalogError> {
        if !looks_like_a_token(text) {
            return Ok(Authentication::Malformed);
        }
        let rows = sqlx::query(LIKELY)
            .bind(&text[..N_SHOWN])
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("look an API key up"))?;
        let digest = digest(text);
        for row in &rows {
            let known: &str = Columns(row).get("digest")?;
            if bool::from(known.as_bytes().ct_eq(digest.as_bytes())) {
                let found = token(row)?;
                return Ok(Authentication::Accepted(self.used(found, now).await));
            }
        }
        Ok(Authentication::Refused)
    }

    /// The tokens of one scope, or all, by number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn tokens(&self, scope: Option<&Scope>) -> Result<Vec<Token>, CatalogError> {
        let query = match scope {
            Some(scope) => sqlx::query(OF_SCOPE).bind(scope.as_str()),
            None => sqlx::query(ALL),
        };
        let rows = query
            .fetch_all(&mut *self.reader().await?)
            .await
            .map_err(CatalogError::act("list the API keys"))?;
        rows.iter().map(token).collect()
    }

    /// The token of that number.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn token(&self, id: u64) -> Result<Token, CatalogError> {
        one(&mut *self.reader().await?, number(id)).await
    }

    /// Changes a token.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], [`CatalogError::Exists`], [`CatalogError::Invalid`].
    pub async fn update_token(&self, id: u64, patch: TokenPatch) -> Result<Token, CatalogError> {
        let act = || CatalogError::act("change an API key");
        let mut tx = self.write().await?;
        let old = one(&mut tx, number(id)).await?;
        let new = Token {
            name: patch.name.unwrap_or(old.name),
            is_active: patch.is_active.unwrap_or(old.is_active),
            ..old
        };
        legal_name(&new.name)?;
        let named: Option<i64> = sqlx::query_scalar(NAMED)
            .bind(new.scope.as_str())
            .bind(&new.name)
            .fetch_optional(&mut *tx)
            .await
            .map_err(act())?;
        if named.is_some_and(|other| other != number(id)) {
            return Err(CatalogError::exists(Kind::Token, &new.name));
        }
        sqlx::query(UPDATE)
            .bind(number(id))
            .bind(&new.name)
            .bind(i64::from(new.is_active))
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        tx.commit().await.map_err(act())?;
        Ok(new)
    }

    /// Removes a token.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`].
    pub async fn delete_token(&self, id: u64) -> Result<(), CatalogError> {
        let act = || CatalogError::act("remove an API key");
        let mut tx = self.write().await?;
        let removed = sqlx::query(DELETE).bind(number(id)).execute(&mut *tx).await.map_err(act())?;
        if removed.rows_affected() == 0 {
            return Err(CatalogError::not_found(Kind::Token, id));
        }
        tx.commit().await.map_err(act())
    }

    /// Notes that a token was used, unless that was noted a moment ago. A disk that is full must
    /// not lock out those who come to make room, so a failure is only logged.
    async fn used(&self, token: Token, now: Timestamp) -> Token {
        let noted = token.last_used.is_some_and(|last| now.duration_since(last) < LAST_USED_GRAIN);
        if noted {
            return token;
        }
        match self.note_use(token.number, now).await {
            Ok(()) => Token { last_used: Some(now), ..token },
            Err(error) => {
                warn!(error = error_chain(&error), "the use of an API key could not be noted");
                token
            }
        }
    }

    async fn note_use(&self, id: u64, now: Timestamp) -> Result<(), CatalogError> {
        let act = || CatalogError::act("note that an API key was used");
        let mut tx = self.write().await?;
        sqlx::query(USED)
            .bind(number(id))
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(act())?;
        tx.commit().await.map_err(act())
    }
}

async fn one(connection: &mut SqliteConnection, id: i64) -> Result<Token, CatalogError> {
    let row = sqlx::query(ONE)
        .bind(id)
        .fetch_optional(connection)
        .await
        .map_err(CatalogError::act("look an API key up"))?;
    row.as_ref().map_or_else(|| Err(CatalogError::not_found(Kind::Token, id)), token)
}

fn token(row: &SqliteRow) -> Result<Token, CatalogError> {
    let row = Columns(row);
    let scope: &str = row.get("scope")?;
    let scope = match scope {
        EVERYTHING => Scope::Admin,
        name => Scope::Collection(Slug::new(name).map_err(|_| unreadable("scope", name))?),
    };
    Ok(Token {
        number: row.count("number")?,
        scope,
        name: row.get("name")?,
        prefix: row.get("prefix")?,
        is_active: row.flag("is_active")?,
        created: row.time("created_at")?,
        last_used: row.maybe_time("last_used_at")?,
    })
}

fn legal_name(name: &str) -> Result<(), CatalogError> {
    let is_legal = !name.trim().is_empty() && name.len() <= MAX_NAME_BYTES;
    if is_legal {
        return Ok(());
    }
    Err(CatalogError::invalid(format!(
        "an API key needs a name of 1 to {MAX_NAME_BYTES} bytes, so that it can be told from others"
    )))
}

fn looks_like_a_token(text: &str) -> bool {
    let random = text.strip_prefix(PREFIX);
    random.is_some_and(|r| r.len() == N_RANDOM && r.bytes().all(|b| ALPHABET.contains(&b)))
}

/// A new token.
fn draw() -> Result<Secret, CatalogError> {
    // Bytes from here on would make some characters likelier than others.
    const UNFAIR: u8 = u8::MAX - (u8::MAX % ALPHABET.len() as u8) - 1;
    let random = SystemRandom::new();
    let mut token = String::with_capacity(PREFIX.len() + N_RANDOM);
    token.push_str(PREFIX);
    while token.len() < PREFIX.len() + N_RANDOM {
        let mut bytes = [0_u8; N_RANDOM];
        random.fill(&mut bytes).map_err(|_| CatalogError::Random)?;
        let fair = bytes.iter().filter(|byte| **byte <= UNFAIR);
        let left = PREFIX.len() + N_RANDOM - token.len();
        token.extend(
            fair.take(left).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])),
        );
    }
    Ok(Secret::new(token))
}

/// The digest of a token, in hexadecimal. A token is random, so it needs no slow hash.
fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
