//! What every database behind the store must do. Each test takes an empty store.

pub(crate) mod agents;
pub(crate) mod bundles;
pub(crate) mod changes;
pub(crate) mod entries;
pub(crate) mod federation;
pub(crate) mod tokens;

/// Runs the whole contract on stores that `$open` makes; what it returns beside them is kept until the test ends.
macro_rules! contract {
    ($open:path => $($module:ident { $($test:ident),* $(,)? })*) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let (store, _kept) = $open().await;
                crate::contract::$module::$test(store).await;
            })*
        })*
    };
}

/// The tests by name; one list for all databases.
macro_rules! on_every {
    ($open:path) => {
        crate::contract::contract! { $open =>
            entries {
                every_field_comes_back,
                a_similar_entry_is_told_with_the_existing_one,
                a_similar_entry_of_the_same_batch_is_told_too,
                a_taken_id_is_told,
                one_bad_item_takes_no_other_along,
                an_entry_federates_only_with_known_bundles,
                large_batches_keep_their_order,
                an_edit_counts_the_revision_and_keeps_what_is_the_stores,
                an_edit_that_is_refused_changes_nothing,
                an_edit_into_a_similar_entry_is_refused,
                an_edit_moves_the_members_searched_by,
                batches_are_deleted_in_order_and_each_but_once,
                what_is_not_there_is_not_updated_or_deleted,
                lists_filter_by_each_field,
                lists_match_selectors_four_ways,
                lists_match_trust_domains_four_ways,
                pages_follow_each_other_through_deletions,
                expired_entries_are_pruned,
            }
            agents {
                every_field_comes_back,
                s_3_either_serial_is_good_until_the_new_one_is_used,
                a_renewal_needs_the_serial_in_use,
                a_banned_agent_stays_and_cannot_return,
                a_second_attestation_replaces_the_first,
                s_23_eviction_takes_the_tokens_alias_along,
                lists_filter_by_each_field,
                pruning_spares_the_banned,
                pruning_keeps_to_its_limit,
                an_agent_stays_with_its_attestor,
                what_is_not_there_is_told,
            }
            tokens {
                a_token_is_good_once,
                s_20_one_of_200_parallel_uses_wins,
                expired_and_unknown_are_told_apart,
                a_token_is_not_issued_twice,
                expired_tokens_are_pruned,
                journals_are_kept_by_row,
            }
            bundles {
                every_field_comes_back,
                i_6_the_sequence_grows_with_each_change_only,
                a_refused_edit_changes_nothing,
                a_set_bundle_keeps_its_sequence,
                lists_page_by_creation,
                an_update_changes_what_is_there,
                deletion_honours_its_mode,
            }
            federation {
                every_field_comes_back,
                a_second_one_with_the_same_domain_is_refused,
                a_bundle_comes_with_it_and_stays,
                an_update_changes_what_it_names,
                what_is_not_there_is_told,
                lists_page_by_creation,
            }
            changes {
                every_write_is_told_before_its_answer,
                a_refused_write_is_no_change,
                a_follower_that_is_far_behind_reads_the_log,
                a_pruned_log_asks_for_a_snapshot,
                a_follower_from_the_future_loads_a_snapshot,
                parallel_writers_lose_nothing,
            }
        }
    };
}

pub(crate) use {contract, on_every};
