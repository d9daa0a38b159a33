//! Catalogues without files, for tests of what stands above.

use std::{path::Path, sync::Arc, time::Duration};

use super::{Catalogue, CatalogueConfig, Source, seeds};
use crate::{
    adapter::{
        backbone::BackboneShape,
        generation::Generation,
        store::{Entry, Pointer},
    },
    domain::Namespace,
};

impl Catalogue {
    /// Serves these adapters to all tenants, from memory.
    pub fn fixed(backbone: BackboneShape, adapters: Vec<Generation>) -> Self {
        let config = CatalogueConfig {
            location: None,
            backbone,
            host_bytes: 1 << 30,
            interval: Duration::from_secs(3600),
        };
        let catalogue = Self::new(config, None, Arc::default());
        for generation in adapters {
            let version = seeds::described(&generation, String::new());
            let key = (Namespace::shared(), generation.name().clone());
            let pointer = Pointer::new(Entry::Adapter { versions: vec![version.clone()], pinned: true });
            catalogue.learn(key.clone(), pointer, Source::Seed(seeds::Folder::nowhere()));
            catalogue.inner.residency.offer((key.0, key.1, version.version), generation);
        }
        catalogue
    }
}

impl seeds::Folder {
    fn nowhere() -> Self {
        Self { path: Path::new("nowhere").into(), state: 0 }
    }
}
