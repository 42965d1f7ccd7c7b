#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

fn client(number: u8) -> ClientKey {
    ClientKey::of([10, 0, 0, number].into())
}

#[test]
fn an_ipv6_network_is_one_client_and_a_mapped_address_is_ipv4() {
    let of = |text: &str| ClientKey::of(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
    assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    assert_eq!(of("::ffff:10.0.0.1"), client(1));
}

#[test]
fn one_client_leaves_a_quarter_to_the_next() {
    let budget = Budget::new(100, 10);
    let held: Vec<_> = std::iter::from_fn(|| budget.try_take(client(1), 1)).collect();
    assert_eq!(held.len(), 75);
    let next: Vec<_> = std::iter::from_fn(|| budget.try_take(client(2), 1)).collect();
    assert_eq!(next.len(), 18);
    drop(held);
    drop(next);
    assert_eq!(budget.free(), 100);
}

#[test]
fn a_client_without_grants_may_have_everything() {
    let budget = Budget::new(100, 10);
    let all = budget.try_take(client(1), 1_000).unwrap();
    assert_eq!(all.amount(), 100);
    assert!(budget.try_take(client(2), 1).is_none());
    drop(all);
    assert!(budget.try_take(client(2), 1).is_some());
}

#[test]
fn the_client_with_the_fewest_units_is_served_first() {
    let budget = Budget::new(4, 10);
    let mut first: Vec<_> = (0..3).map(|_| budget.try_take(client(1), 1).unwrap()).collect();
    let second = budget.try_take(client(2), 1).unwrap();
    let mut greedy = Box::pin(budget.take(client(1), 1));
    let mut modest = Box::pin(budget.take(client(2), 1));
    let mut new = Box::pin(budget.take(client(3), 1));
    assert!(greedy.as_mut().now_or_never().is_none());
    assert!(modest.as_mut().now_or_never().is_none());
    assert!(new.as_mut().now_or_never().is_none());
    first.pop();
    let granted = new.as_mut().now_or_never().unwrap().unwrap();
    assert!(greedy.as_mut().now_or_never().is_none());
    drop(second);
    let modest = modest.as_mut().now_or_never().unwrap().unwrap();
    assert_eq!(modest.client(), client(2));
    drop((granted, modest, first));
    assert!(greedy.as_mut().now_or_never().unwrap().is_ok());
    assert_eq!((budget.waiting(), budget.free()), (0, 4));
}

/// If no client can have more than another, as with one unit, a client with a long queue gets every second turn.
#[test]
fn clients_take_turns() {
    let budget = Budget::new(1, 100);
    let mut held = budget.try_take(client(1), 1).unwrap();
    let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(budget.take(client(1), 1))).collect();
    waiting.extend((0..3).map(|_| Box::pin(budget.take(client(2), 1))));
    for one in &mut waiting {
        assert!(one.as_mut().now_or_never().is_none());
    }
    let mut order = Vec::new();
    for _ in 0..8 {
        drop(held);
        let index = waiting
            .iter_mut()
            .position(|one| one.waiting.as_ref().unwrap().answer.lock().unwrap().decided.is_some());
        let mut next = waiting.remove(index.unwrap());
        held = next.as_mut().now_or_never().unwrap().unwrap();
        order.push(held.client() == client(2));
    }
    assert_eq!(order, [true, false, true, false, true, false, false, false]);
}

/// Two clients that ask for one turn after another have no account in between. They still do not come before a client
/// that has been waiting.
#[test]
fn a_client_that_comes_back_waits_its_turn() {
    let budget = Budget::new(1, 100);
    let mut held = budget.try_take(client(1), 1).unwrap();
    let mut queue: Vec<_> = (0..2).map(|_| Box::pin(budget.take(client(3), 1))).collect();
    assert!(queue.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
    let mut turns = Vec::new();
    for number in [2, 1, 2, 1, 2, 1] {
        let mut back = Box::pin(budget.take(client(number), 1));
        assert!(back.as_mut().now_or_never().is_none());
        drop(held);
        if let Some(granted) = queue.first_mut().and_then(|one| one.as_mut().now_or_never()) {
            held = granted.unwrap();
            drop(queue.remove(0));
            turns.push(true);
        } else {
            held = back.as_mut().now_or_never().unwrap().unwrap();
            turns.push(false);
        }
    }
    assert_eq!(turns.iter().filter(|third| **third).count(), 2, "{turns:?}");
}

#[test]
fn at_the_bound_the_newest_of_the_greediest_is_refused() {
    let budget = Budget::new(1, 3);
    let held = budget.try_take(client(9), 1).unwrap();
    let mut greedy: Vec<_> = (0..3).map(|_| Box::pin(budget.take(client(1), 1))).collect();
    for one in &mut greedy {
        assert!(one.as_mut().now_or_never().is_none());
    }
    let mut other = Box::pin(budget.take(client(2), 1));
    assert!(other.as_mut().now_or_never().is_none());
    assert_eq!(greedy[2].as_mut().now_or_never().unwrap().unwrap_err(), Refused);
    let one_more = budget.take(client(1), 1).now_or_never().unwrap();
    assert_eq!(one_more.unwrap_err(), Refused);
    drop(held);
    assert!(greedy[0].as_mut().now_or_never().is_some());
}

#[test]
fn a_large_request_is_not_passed_by_small_ones() {
    let budget = Budget::new(10, 10);
    let held = budget.try_take(client(1), 5).unwrap();
    let mut large = Box::pin(budget.take(client(2), 8));
    assert!(large.as_mut().now_or_never().is_none());
    assert!(budget.try_take(client(3), 1).is_none());
    drop(held);
    assert!(large.as_mut().now_or_never().is_some());
}

#[test]
fn a_dropped_request_leaves_nothing_behind() {
    let budget = Budget::new(2, 10);
    let held = budget.try_take(client(1), 2).unwrap();
    let mut waits = Box::pin(budget.take(client(2), 1));
    let mut granted = Box::pin(budget.take(client(3), 1));
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(granted.as_mut().now_or_never().is_none());
    drop(waits);
    drop(held);
    drop(granted);
    assert_eq!((budget.free(), budget.waiting()), (2, 0));
    assert!(budget.0.lock().clients.is_empty());
}

#[test]
fn grants_of_nothing_leave_nothing_behind() {
    let budget = Budget::new(10, 1);
    let nothing = budget.try_take(client(1), 0).unwrap();
    let waited = budget.take(client(2), 0).now_or_never().unwrap().unwrap();
    let mut shrunk = budget.try_take(client(3), 4).unwrap();
    assert!(!shrunk.falls_behind(1));
    shrunk.shrink_to(0);
    let mut split = budget.try_take(client(4), 4).unwrap();
    drop(split.split(4));
    drop((nothing, waited, shrunk, split));
    assert!(budget.0.lock().clients.is_empty());
    assert_eq!(budget.free(), 10);
}

#[test]
fn grants_are_split_merged_and_shrunk() {
    let budget = Budget::new(10, 1);
    let mut grant = budget.try_take(client(1), 4).unwrap();
    let part = grant.split(3);
    assert_eq!((grant.amount(), part.amount(), budget.free()), (1, 3, 6));
    grant.merge(part);
    assert!(grant.try_grow(2));
    assert!(!grant.try_grow(2), "that would be more than three quarters");
    grant.shrink_to(2);
    assert_eq!((grant.amount(), budget.free()), (2, 8));
}

#[test]
fn a_slow_grant_must_end_only_while_others_wait() {
    let budget = Budget::new(12, 10);
    let mut slow: Vec<_> = (0..9).map(|_| budget.try_take(client(1), 1).unwrap()).collect();
    let mut modest = budget.try_take(client(2), 1).unwrap();
    let rest = budget.try_take(client(3), 2).unwrap();
    assert!(!slow[0].falls_behind(1), "no other request waits");
    let mut waiting = Box::pin(budget.take(client(4), 2));
    assert!(waiting.as_mut().now_or_never().is_none());
    assert!(!modest.falls_behind(0), "another one holds more and is slow too");
    assert!(slow[0].falls_behind(1));
    assert!(!slow[1].falls_behind(9), "it is the faster one of two");
    assert!(slow[2].falls_behind(2));
    drop(slow.swap_remove(2));
    assert!(waiting.as_mut().now_or_never().is_none());
    slow[0].catches_up();
    assert!(slow[1].falls_behind(9), "it is the only one now");
    drop(slow.swap_remove(1));
    assert!(waiting.as_mut().now_or_never().is_some(), "two have given way");
    assert!(!slow[0].falls_behind(0));
    drop((slow, modest, rest));
    assert!(budget.0.lock().clients.is_empty());
}

/// One client has as much as it may have, and wants more. That is no reason to end the only request of another client,
/// however slow that request is.
#[test]
fn a_small_grant_does_not_end_for_a_client_with_more() {
    let budget = Budget::new(12, 10);
    let mut fast = budget.try_take(client(1), 9).unwrap();
    let mut slow = budget.try_take(client(2), 1).unwrap();
    let mut more = Box::pin(budget.take(client(1), 1));
    assert!(more.as_mut().now_or_never().is_none());
    assert!(!slow.falls_behind(0), "another one's queue");
    assert!(fast.falls_behind(0), "its own queue");
    fast.catches_up();
    let mut new = Box::pin(budget.take(client(3), 3));
    assert!(new.as_mut().now_or_never().is_none());
    assert!(slow.falls_behind(0), "the waiting client has less");
    drop(new);
    let mut own = Box::pin(budget.take(client(2), 2));
    assert!(own.as_mut().now_or_never().is_none());
    assert!(slow.falls_behind(0), "its own queue");
}

proptest! {
    /// A request with a grant of one budget may wait for another budget, if all requests take budgets in the same
    /// order. Then some request can always continue, whatever the grants and however many requests there are.
    #[test]
    fn budgets_that_are_taken_in_order_never_block_each_other(
        wants in proptest::collection::vec((0_u8..4, proptest::array::uniform3(0_u64..9)), 1..60),
    ) {
        type BudgetUser = (ClientKey, [u64; 3], Vec<Grant>, Option<Pin<Box<Take>>>);
        let budgets = [Budget::new(7, 100), Budget::new(8, 100), Budget::new(5, 100)];
        let mut requests: Vec<BudgetUser> = wants
            .iter()
            .map(|(number, amounts)| (client(*number), *amounts, Vec::new(), None))
            .collect();
        // Every request asks for as much as possible before any returns its units.
        let mut rounds = 0;
        while !requests.is_empty() {
            let mut moved = false;
            for (client, amounts, held, waiting) in &mut requests {
                while held.len() < budgets.len() {
                    let next = held.len();
                    let take = waiting.get_or_insert_with(|| Box::pin(budgets[next].take(*client, amounts[next])));
                    let Some(granted) = take.as_mut().now_or_never() else { break };
                    held.push(granted.unwrap());
                    *waiting = None;
                    moved = true;
                }
            }
            let before = requests.len();
            // One at a time: the worst order.
            if let Some(done) = requests.iter().position(|(_, _, held, _)| held.len() == budgets.len()) {
                requests.swap_remove(done);
            }
            prop_assert!(moved || requests.len() < before, "{} requests wait for each other", requests.len());
            rounds += 1;
            prop_assert!(rounds < 1_000);
        }
        prop_assert_eq!(budgets.map(|budget| budget.free()), [7, 8, 5]);
    }

    /// Takes, withdrawals and returns in any order: no unit is granted twice, none is lost, and no request waits for
    /// units that it could have.
    #[test]
    fn no_unit_is_lost(steps in proptest::collection::vec((0_u8..4, 1_u64..6, 0_u8..3), 1..200)) {
        let budget = Budget::new(12, 5);
        let mut waiting: Vec<Pin<Box<Take>>> = Vec::new();
        let mut held: Vec<Grant> = Vec::new();
        for (number, amount, step) in steps {
            match step {
                0 => waiting.push(Box::pin(budget.take(client(number), amount))),
                1 if !held.is_empty() => drop(held.swap_remove(usize::from(number) % held.len())),
                2 if !waiting.is_empty() => drop(waiting.swap_remove(usize::from(number) % waiting.len())),
                _ => {}
            }
            // Twice, because the first round may fill the queue and so refuse a request that was checked before.
            for _ in 0..2 {
                for mut one in std::mem::take(&mut waiting) {
                    match one.as_mut().now_or_never() {
                        Some(Ok(grant)) => held.push(grant),
                        Some(Err(Refused)) => {}
                        None => waiting.push(one),
                    }
                }
            }
            let granted: u64 = held.iter().map(Grant::amount).sum();
            prop_assert_eq!(granted + budget.free(), 12);
            prop_assert_eq!(budget.waiting(), waiting.len());
            prop_assert!(waiting.len() <= 5);
            prop_assert!(!held.is_empty() || waiting.is_empty());
        }
    }
}
