//! What an entity says about a service, as rules look at it.

use super::answer::{Entity, TagItem};
use crate::rules::{Facts, Tag};
use crate::source::KnownService;

pub(super) fn described(entity: Entity) -> (String, KnownService) {
    let management_zones = entity.management_zones.iter().map(|zone| zone.name.clone()).collect();
    let mut facts = Facts { management_zones, ..Facts::default() };
    describe(&mut facts, &entity);
    (
        entity.entity_id.clone(),
        KnownService { name: entity.display_name, entity_id: entity.entity_id, facts, tenant: 0 },
    )
}

/// Adds what an entity says to what is known of a service. Where its processes disagree, nothing is known.
pub(super) fn describe(facts: &mut Facts, entity: &Entity) {
    let tag = |tag: &TagItem| Tag {
        context: tag.context.clone(),
        key: tag.key.clone(),
        value: tag.value.clone().unwrap_or_default(),
    };
    facts.tags.extend(entity.tags.iter().map(tag));
    let release = entity.properties.releases_version.iter().map(|version| ("releasesVersion", version));
    let metadata = entity.properties.metadata.iter().map(|one| (one.key.as_str(), &one.value));
    for (key, value) in metadata.chain(release).filter(|(_, value)| !value.is_empty()) {
        match facts.metadata.get_mut(key) {
            Some(known) if known == value => {}
            // An empty one is taken for none.
            Some(known) => known.clear(),
            None => {
                facts.metadata.insert(key.to_owned(), value.clone());
            }
        }
    }
}
