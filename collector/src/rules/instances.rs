//! Several entities of the source that are one service: what each is called, and which side of a comparison it is on. Pure.

use super::{Condition, Expression, Named};
use crate::source::KnownService;
use vouch_proto::{HostGroup, Name};

/// How a rule tells the entities of one name apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instances {
    /// What each is called: the first that has a value; its display name where none has.
    pub name: Vec<Expression>,
    /// What runs the new version, whatever its version; empty where the version tells.
    pub test: Vec<Condition>,
    /// What goes on with the old one; empty for all that is not `test`.
    pub control: Vec<Condition>,
}

/// One of the entities that are a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// As series call it.
    pub name: String,
    /// Its side, where the rule says it; else its version does.
    pub group: Option<HostGroup>,
}

impl Instances {
    /// What an entity, or a process, is within a service.
    pub(super) fn of(&self, service: &Name, one: &KnownService) -> Instance {
        let named = self.name.iter().find_map(|word| word.value(one));
        let shown = || match one.name.trim() {
            // What all of them may be called tells none of them apart.
            "" => one.entity_id.clone(),
            name if name == service.as_str() => format!("{name} ({})", one.entity_id),
            name => name.to_owned(),
        };
        Instance { name: named.unwrap_or_else(shown), group: self.group(one) }
    }

    /// The side that the rule puts something on; `None` leaves it to the version.
    #[must_use]
    pub fn group(&self, one: &KnownService) -> Option<HostGroup> {
        let fits = |all: &[Condition]| !all.is_empty() && all.iter().all(|condition| condition.fits(one));
        if fits(&self.test) {
            return Some(HostGroup::Test);
        }
        let rest = self.control.is_empty() && !self.test.is_empty();
        (rest || fits(&self.control)).then_some(HostGroup::Control)
    }
}

/// Gives each of them a name of its own.
pub(super) fn tell_apart(same: &mut [Named]) {
    let names: Vec<Option<String>> =
        same.iter().map(|one| one.instance.as_ref().map(|instance| instance.name.clone())).collect();
    for one in same.iter_mut() {
        let Some(instance) = &mut one.instance else { continue };
        let shared = names.iter().flatten().filter(|name| **name == instance.name).count() > 1;
        if shared {
            instance.name = format!("{} ({})", instance.name, one.entity_id);
        }
    }
}

/// Whether two texts name the same version: a leading `v` says nothing.
#[must_use]
pub fn is_version(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.trim().trim_start_matches(['v', 'V']).to_owned();
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::super::{Matching, Rule, Subject, tagged};
    use super::*;

    fn rule(instances: Instances) -> Rule {
        Rule {
            service: vec!["label:app".parse().unwrap()],
            version: vec!["label:version".parse().unwrap()],
            instances: Some(instances),
            ..Rule::by_display_name()
        }
    }

    fn named(pattern: &str) -> Vec<Condition> {
        let Ok(pattern) = pattern.parse();
        vec![Condition { subject: Subject::Value(Expression::Field("name")), patterns: vec![pattern] }]
    }

    fn service(name: &str, version: &str) -> KnownService {
        tagged(name, &[("KUBERNETES", "app", "checkout"), ("KUBERNETES", "version", version)])
    }

    fn found(rule: Rule, services: &[KnownService]) -> Vec<(String, Option<HostGroup>, Option<String>)> {
        let matching = Matching::of(&[rule], services);
        assert_eq!((matching.named.len(), matching.ambiguous.len()), (0, 0), "{matching:?}");
        let [same] = matching.instances.as_slice() else { panic!("{matching:?}") };
        let of = |one: &Named| {
            let instance = one.instance.clone().unwrap();
            (instance.name, instance.group, one.version.clone())
        };
        same.iter().map(of).collect()
    }

    #[test]
    fn entities_of_one_name_are_instances_and_keep_their_names() {
        let all = [service("checkout-v1", "1.0"), service("checkout-v2", "2.0")];
        let by_version = found(rule(Instances::default()), &all);
        assert_eq!(by_version[0], ("checkout-v1".into(), None, Some("1.0".into())));
        assert_eq!(by_version[1], ("checkout-v2".into(), None, Some("2.0".into())));
        let words = Instances { name: vec!["label:version".parse().unwrap()], ..Instances::default() };
        assert_eq!(found(rule(words), &all)[1].0, "2.0");
        let one = found(rule(Instances::default()), &all[..1]);
        assert_eq!(one.len(), 1, "one alone is an instance as well: another may follow");
    }

    #[test]
    fn names_that_are_shared_carry_the_id() {
        let mut twins = [service("checkout", "1.0"), service("checkout", "2.0")];
        twins[1].entity_id = "SERVICE-2".into();
        let names: Vec<String> =
            found(rule(Instances::default()), &twins).into_iter().map(|one| one.0).collect();
        assert_eq!(names, ["checkout (SERVICE-2)", "checkout (SERVICE-checkout)"]);
        let mut pods = [service("pod", "1.0"), service("pod", "1.0")];
        pods[1].entity_id = "SERVICE-2".into();
        let names: Vec<String> =
            found(rule(Instances::default()), &pods).into_iter().map(|one| one.0).collect();
        assert_eq!(names, ["pod (SERVICE-2)", "pod (SERVICE-pod)"]);
    }

    #[test]
    fn patterns_say_the_side_whatever_the_version() {
        let all = [service("checkout", "1.0"), service("checkout-canary", "1.0"), service("other", "1.0")];
        let sides = |instances: Instances| -> Vec<Option<HostGroup>> {
            found(rule(instances), &all).into_iter().map(|one| one.1).collect()
        };
        let (control, test) = (Some(HostGroup::Control), Some(HostGroup::Test));
        let canary = Instances { test: named("*-canary"), ..Instances::default() };
        assert_eq!(sides(canary.clone()), [control, test, control], "the rest goes on with the old version");
        assert_eq!(sides(Instances { control: named("checkout"), ..canary }), [control, test, None]);
    }

    #[test]
    fn a_rule_without_the_word_leaves_several_ambiguous() {
        let all = [service("checkout-v1", "1.0"), service("checkout-v2", "2.0")];
        let matching = Matching::of(&[Rule { instances: None, ..rule(Instances::default()) }], &all);
        assert_eq!((matching.ambiguous.len(), matching.instances.len()), (1, 0));
    }

    #[test]
    fn versions_are_the_same_with_and_without_their_letter() {
        assert!(is_version("v2.1", "2.1") && is_version(" 2.1", "V2.1"));
        assert!(!is_version("2.1", "2.10"));
    }
}
