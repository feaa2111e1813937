//! Which numbers may stand for a set of labels, best first?

use abi::identity::{MAXIMAL_ALLOCATED, MINIMAL_ALLOCATED};
use labels::Labels;

use crate::NumericIdentity;

/// Every number for workloads once, beginning with the one that these labels hash to. All nodes propose the same
/// number for the same labels first, so that races are rare; who is first to create the object decides them.
pub fn candidates(labels: &Labels) -> impl Iterator<Item = NumericIdentity> + use<> {
    let count = u64::from(MAXIMAL_ALLOCATED - MINIMAL_ALLOCATED + 1);
    let first = hash(labels) % count;
    (0..count).map(move |step| MINIMAL_ALLOCATED + ((first + step) % count) as u32)
}

/// FNV-1a over the printed labels, each closed by a byte that no label holds, and mixed: the same on every node, for
/// ever.
fn hash(labels: &Labels) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for label in labels {
        for part in [&label.source, &label.key, &label.value] {
            part.bytes().for_each(&mut eat);
            eat(0);
        }
    }
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^ (state >> 33)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    fn labels(app: &str) -> Labels {
        Labels::parse([format!("k8s:app={app}").as_str(), "k8s:io.kubernetes.pod.namespace=default"]).unwrap()
    }

    #[test]
    fn every_number_for_workloads_is_proposed_once() {
        let all: Vec<u32> = candidates(&labels("web")).collect();
        let distinct: BTreeSet<u32> = all.iter().copied().collect();
        assert_eq!((all.len(), distinct.len()), (65280, 65280));
        assert_eq!((distinct.first(), distinct.last()), (Some(&256), Some(&65535)));
    }

    #[test]
    fn the_first_proposal_never_changes() {
        // Agents of different versions must agree.
        assert_eq!(candidates(&labels("web")).next(), Some(FIRST_FOR_WEB));
        assert_ne!(candidates(&labels("web")).next(), candidates(&labels("db")).next());
    }

    const FIRST_FOR_WEB: u32 = 62687;

    #[test]
    fn first_proposals_spread() {
        let firsts: BTreeSet<u32> = (0..1000).filter_map(|n| candidates(&labels(&n.to_string())).next()).collect();
        assert!(firsts.len() > 980, "{}", firsts.len());
    }
}
