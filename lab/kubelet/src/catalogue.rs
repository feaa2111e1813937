//! Which program does an image name stand for?

/// Where the lab's commands are in every container; first in `PATH`.
pub const COMMANDS: &str = "/run/axoneme/bin";

/// `PATH` of a container that does not say otherwise.
pub const PATH: &str = "/run/axoneme/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Always run, before the arguments of the pod.
    pub entrypoint: &'static [&'static str],
    /// Arguments when the pod names none.
    pub arguments: &'static [&'static str],
}

const fn program(entrypoint: &'static [&'static str]) -> Image {
    Image { entrypoint, arguments: &[] }
}

const CLIENT: Image = Image { entrypoint: &[], arguments: &["axoneme", "lab-app", "client"] };

/// Names are the last path component of an image, without tag and digest.
const IMAGES: &[(&str, Image)] = &[
    ("agnhost", Image { entrypoint: &["axoneme", "lab-app", "agnhost"], arguments: &["pause"] }),
    ("alpine", Image { entrypoint: &[], arguments: &["sh"] }),
    ("busybox", Image { entrypoint: &[], arguments: &["sh"] }),
    ("cilium", Image { entrypoint: &[], arguments: &["cilium-agent"] }),
    ("client", CLIENT),
    ("coredns", program(&["axoneme", "lab-app", "coredns"])),
    ("curl", CLIENT),
    ("echo", program(&["axoneme", "lab-app", "echo"])),
    ("emojivoto-emoji-svc", program(&["axoneme", "lab-app", "emoji"])),
    ("emojivoto-voting-svc", program(&["axoneme", "lab-app", "voting"])),
    ("emojivoto-web", Image { entrypoint: &[], arguments: &["axoneme", "lab-app", "emojivoto-web"] }),
    ("emojivoto-vote-bot", program(&["axoneme", "lab-app", "vote-bot"])),
    ("examples-bookinfo-details-v1", program(&["axoneme", "lab-app", "details"])),
    ("examples-bookinfo-productpage-v1", program(&["axoneme", "lab-app", "productpage"])),
    ("examples-bookinfo-ratings-v1", program(&["axoneme", "lab-app", "ratings"])),
    ("examples-bookinfo-reviews-v1", program(&["axoneme", "lab-app", "reviews-v1"])),
    ("examples-bookinfo-reviews-v2", program(&["axoneme", "lab-app", "reviews-v2"])),
    ("examples-bookinfo-reviews-v3", program(&["axoneme", "lab-app", "reviews-v3"])),
    ("http-echo", program(&["axoneme", "lab-app", "http-echo"])),
    ("hubble-relay", Image { entrypoint: &["hubble-relay"], arguments: &["serve"] }),
    ("json-mock", program(&["axoneme", "lab-app", "echo"])),
    ("local-path-provisioner", program(&["axoneme", "lab-app", "api-watcher"])),
    ("netshoot", CLIENT),
    ("nginx", program(&["axoneme", "lab-app", "web"])),
    ("operator", program(&["cilium-operator"])),
    ("operator-generic", program(&["cilium-operator"])),
    ("pause", program(&["axoneme", "lab-app", "pause"])),
    ("web", program(&["axoneme", "lab-app", "web"])),
];

/// The image's name as the catalogue knows it: no registry, path, tag or digest.
pub fn short_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(['@', ':']).next().unwrap_or(last)
}

/// Finds an image.
pub fn find(image: &str) -> Option<Image> {
    let name = short_name(image);
    IMAGES.iter().find(|(known, _)| *known == name).map(|(_, image)| *image)
}

/// The names of all images.
pub fn names() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|(name, _)| *name)
}

/// What a container runs, or why nothing.
pub fn argv(image: &str, command: &[String], args: &[String]) -> Result<Vec<String>, String> {
    if !command.is_empty() {
        return Ok(command.iter().chain(args).cloned().collect());
    }
    let Some(known) = find(image) else {
        let names: Vec<&str> = names().collect();
        return Err(format!(
            "image {image:?} is not in the lab's catalogue and the container has no command; the catalogue has: {}",
            names.join(", ")
        ));
    };
    let own = |words: &[&str]| words.iter().map(|w| (*w).to_string()).collect::<Vec<_>>();
    let mut argv = own(known.entrypoint);
    argv.extend(if args.is_empty() { own(known.arguments) } else { args.to_vec() });
    Ok(argv)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn images_are_found_by_their_last_name() {
        for image in ["quay.io/cilium/cilium:v1.20.2@sha256:abc", "cilium", "localhost:5000/cilium"] {
            assert_eq!(short_name(image), "cilium", "{image}");
            assert!(find(image).is_some(), "{image}");
        }
    }

    #[test]
    fn a_command_needs_no_image_and_no_command_needs_one() {
        let words = |w: &[&str]| w.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(argv("x/y:1", &words(&["sleep"]), &words(&["1"])).unwrap(), ["sleep", "1"]);
        assert_eq!(
            argv("x/agnhost:2", &[], &words(&["netexec"])).unwrap(),
            ["axoneme", "lab-app", "agnhost", "netexec"]
        );
        assert_eq!(argv("agnhost", &[], &[]).unwrap(), ["axoneme", "lab-app", "agnhost", "pause"]);
        assert!(argv("x/y:1", &[], &[]).unwrap_err().contains("agnhost, "));
    }
}
