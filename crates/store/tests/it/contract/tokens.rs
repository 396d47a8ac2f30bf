use std::time::Duration;

use store::{CaJournal, JoinToken, Store, TokenError};
use tokio::task::JoinSet;

use crate::support::{NOW, at};

fn token(value: &str, expires_at: u64) -> JoinToken {
    JoinToken {
        value: value.to_owned(),
        expires_at: at(expires_at),
    }
}

pub(crate) async fn a_token_is_good_once(store: Store) {
    store
        .create_join_token(&token("t", NOW + 600))
        .await
        .unwrap();
    store.use_join_token("t", at(NOW)).await.unwrap();
    assert_eq!(
        store.use_join_token("t", at(NOW)).await,
        Err(TokenError::Unknown)
    );
}

pub(crate) async fn s_20_one_of_200_parallel_uses_wins(store: Store) {
    for round in 0..5 {
        let value = format!("token-{round}");
        store
            .create_join_token(&token(&value, NOW + 600))
            .await
            .unwrap();
        let mut uses = JoinSet::new();
        for _ in 0..200 {
            let (store, value) = (store.clone(), value.clone());
            uses.spawn(async move { store.use_join_token(&value, at(NOW)).await });
        }
        let outcomes = uses.join_all().await;
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(winners, 1, "round {round}");
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Ok(()) | Err(TokenError::Unknown)))
        );
    }
}

pub(crate) async fn expired_and_unknown_are_told_apart(store: Store) {
    store
        .create_join_token(&token("old", NOW - 1))
        .await
        .unwrap();
    store.create_join_token(&token("edge", NOW)).await.unwrap();
    assert_eq!(
        store.use_join_token("never", at(NOW)).await,
        Err(TokenError::Unknown)
    );
    assert_eq!(
        store.use_join_token("old", at(NOW)).await,
        Err(TokenError::Expired)
    );
    assert_eq!(
        store.use_join_token("old", at(NOW)).await,
        Err(TokenError::Unknown)
    );
    store.use_join_token("edge", at(NOW)).await.unwrap();
}

pub(crate) async fn a_token_is_not_issued_twice(store: Store) {
    store.create_join_token(&token("t", NOW + 1)).await.unwrap();
    assert_eq!(
        store.create_join_token(&token("t", NOW + 600)).await,
        Err(TokenError::Exists)
    );
    // The first one's time stands.
    assert_eq!(
        store
            .use_join_token("t", at(NOW) + Duration::from_secs(2))
            .await,
        Err(TokenError::Expired)
    );
}

pub(crate) async fn expired_tokens_are_pruned(store: Store) {
    store
        .create_join_token(&token("old", NOW - 1))
        .await
        .unwrap();
    store.create_join_token(&token("new", NOW)).await.unwrap();
    assert_eq!(store.prune_join_tokens(at(NOW)).await, Ok(1));
    assert_eq!(
        store.use_join_token("old", at(NOW)).await,
        Err(TokenError::Unknown)
    );
    store.use_join_token("new", at(NOW)).await.unwrap();
}

pub(crate) async fn journals_are_kept_by_row(store: Store) {
    let journal = |id, authority: &str, data: &[u8]| CaJournal {
        id,
        active_x509_authority_id: authority.to_owned(),
        data: data.to_vec(),
    };
    let first = store
        .save_ca_journal(None, "aa", b"1".to_vec())
        .await
        .unwrap();
    let second = store
        .save_ca_journal(None, "bb", b"2".to_vec())
        .await
        .unwrap();
    assert_eq!(
        store
            .save_ca_journal(Some(first), "cc", b"3".to_vec())
            .await,
        Ok(first)
    );
    assert_eq!(
        store.ca_journals().await.unwrap(),
        [journal(first, "cc", b"3"), journal(second, "bb", b"2")]
    );
    store.delete_ca_journal(first).await.unwrap();
    assert_eq!(
        store.ca_journals().await.unwrap(),
        [journal(second, "bb", b"2")]
    );
}
