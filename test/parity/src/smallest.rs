//! What is the smallest world in which a packet still fails?

use crate::case::Case;
use crate::kernel::Kernel;
use crate::scene::Scene;
use crate::verdicts::{Bed, Tamper};
use oracle::World;
use std::fmt::Write;

/// Describes the case with as little around it as possible.
pub fn report(kernel: &Kernel, world: &World, case: &Case, tamper: Tamper) -> String {
    let fails = |world: &World| fault(kernel, world, case, tamper);
    if fails(world).is_none() {
        return format!("only after the packets before it: {case:?}");
    }
    let small = shrink(world.clone(), &|world| fails(world).is_some());
    let mut text = format!("smallest case: {case:?}\n{}\n", fails(&small).unwrap_or_default());
    for policy in &small.policies {
        let _ = writeln!(text, "{policy:#?}");
    }
    for identity in concerned(case) {
        let _ = writeln!(text, "{identity}: {:?}", small.parties.get(&identity));
    }
    text + &format!("{:?}", small.settings)
}

/// What goes wrong with the packet in a fresh world.
fn fault(kernel: &Kernel, world: &World, case: &Case, tamper: Tamper) -> Option<String> {
    let scene = Scene::of(world.clone());
    match Bed::open(kernel, scene, tamper) {
        Ok(mut bed) => bed.try_new(case).err(),
        Err(error) => Some(error.to_string()),
    }
}

/// Takes away policies, rules and workloads as long as the packet fails.
fn shrink(mut world: World, fails: &dyn Fn(&World) -> bool) -> World {
    loop {
        let smaller = candidates(&world).into_iter().find(|world| fails(world));
        match smaller {
            Some(smaller) => world = smaller,
            None => return world,
        }
    }
}

/// Worlds with one thing less.
fn candidates(world: &World) -> Vec<World> {
    let mut all = Vec::new();
    for at in 0..world.policies.len() {
        let mut less = world.clone();
        less.policies.remove(at);
        all.push(less);
        for rule in 0..world.policies[at].rules.len() {
            if world.policies[at].rules.len() > 1 {
                let mut less = world.clone();
                less.policies[at].rules.remove(rule);
                all.push(less);
            }
        }
    }
    all
}

fn concerned(case: &Case) -> Vec<u32> {
    case.questions().iter().map(|question| question.subject).collect()
}
