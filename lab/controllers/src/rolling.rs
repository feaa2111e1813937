//! How far may a rollout go in its next step?

use serde_json::Value;

/// Numbers of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub desired: i64,
    /// Pods that may exist beyond those desired.
    pub surge: i64,
    /// Desired pods that may be missing.
    pub unavailable: i64,
}

/// A set of pods of one template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    pub wanted: i64,
    pub available: i64,
}

/// A number, or a percentage of the total.
pub fn resolve(value: &Value, total: i64, round_up: bool) -> i64 {
    match value {
        Value::Number(number) => number.as_i64().unwrap_or(0).max(0),
        Value::String(text) => {
            let Some(percent) = text.strip_suffix('%').and_then(|text| text.parse::<i64>().ok()) else { return 0 };
            if round_up { (total * percent + 99) / 100 } else { total * percent / 100 }
        }
        _ => 0,
    }
}

/// The limits of a deployment's rolling update.
pub fn limits(strategy: &Value, desired: i64) -> Limits {
    let surge = resolve(&strategy["rollingUpdate"]["maxSurge"], desired, true);
    let unavailable = resolve(&strategy["rollingUpdate"]["maxUnavailable"], desired, false).min(desired);
    // Without any slack nothing could ever move.
    Limits { desired, surge, unavailable: if surge == 0 && unavailable == 0 { 1 } else { unavailable } }
}

/// How many pods the new set should have now, and how many each old set.
pub fn step(limits: Limits, new: Set, old: &[Set]) -> (i64, Vec<i64>) {
    let total = new.wanted + old.iter().map(|set| set.wanted).sum::<i64>();
    let room = limits.desired + limits.surge - total;
    let wanted =
        if new.wanted > limits.desired { limits.desired } else { limits.desired.min(new.wanted + room.max(0)) };
    (wanted, shrink(limits, new, old, total))
}

fn shrink(limits: Limits, new: Set, old: &[Set], total: i64) -> Vec<i64> {
    let mut wanted: Vec<i64> = old.iter().map(|set| set.wanted).collect();
    let least = limits.desired - limits.unavailable;
    let mut spare = total - least - (new.wanted - new.available).max(0);
    // Old pods that do not work help nobody: they go first.
    for (wanted, set) in wanted.iter_mut().zip(old) {
        let broken = (set.wanted - set.available).max(0).min(spare.max(0));
        *wanted -= broken;
        spare -= broken;
    }
    let available = new.available.min(new.wanted)
        + wanted.iter().zip(old).map(|(wanted, set)| set.available.min(*wanted)).sum::<i64>();
    let mut spare = (available - least).min(spare);
    for wanted in &mut wanted {
        let fewer = (*wanted).min(spare.max(0));
        *wanted -= fewer;
        spare -= fewer;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(wanted: i64, available: i64) -> Set {
        Set { wanted, available }
    }

    #[test]
    fn percentages_round_up_for_surge_and_down_for_absence() {
        let strategy = json!({"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
        assert_eq!(limits(&strategy, 10), Limits { desired: 10, surge: 3, unavailable: 2 });
        assert_eq!(limits(&strategy, 1), Limits { desired: 1, surge: 1, unavailable: 0 });
        let none = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}});
        assert_eq!(limits(&none, 3).unavailable, 1);
    }

    #[test]
    fn a_rollout_ends_and_never_breaks_its_limits() {
        for desired in 0..12 {
            for (surge, unavailable) in [(1, 0), (0, 1), (3, 2), (1, 1)] {
                let limits = Limits { desired, surge, unavailable: unavailable.min(desired.max(1)) };
                let (mut new, mut old) = (set(0, 0), vec![set(desired, desired)]);
                let mut rounds = 0;
                while new.available < desired || old[0].wanted > 0 {
                    let (wanted, shrunk) = step(limits, new, &old);
                    new.wanted = wanted;
                    old[0] = set(shrunk[0], shrunk[0].min(old[0].available));
                    assert!(new.wanted + old[0].wanted <= desired + surge, "{limits:?} {new:?} {old:?}");
                    assert!(
                        new.available + old[0].available >= desired - limits.unavailable,
                        "{limits:?} {new:?} {old:?}"
                    );
                    // One pod becomes available between steps.
                    new.available = (new.available + 1).min(new.wanted);
                    rounds += 1;
                    assert!(rounds < 100, "{limits:?}");
                }
            }
        }
    }

    #[test]
    fn broken_old_pods_go_first() {
        let limits = Limits { desired: 3, surge: 1, unavailable: 0 };
        assert_eq!(step(limits, set(1, 0), &[set(3, 2)]).1, [3]);
        assert_eq!(step(limits, set(1, 1), &[set(3, 2)]).1, [2]);
    }
}
