//! A store that fails: what is in memory is served, the rest says why it is not, and all is well again when the store is.

use std::{
    fmt,
    io::ErrorKind,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error as ObjectError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as Done, memory::InMemory,
    path::Path,
};

use super::*;
use crate::telemetry::{StoreFault, StoreWork};

/// What a store says instead of doing what it is asked.
type Excuse = fn() -> ObjectError;

fn of_system(kind: ErrorKind) -> ObjectError {
    ObjectError::Generic { store: "test", source: Box::new(std::io::Error::from(kind)) }
}

fn refused() -> ObjectError {
    of_system(ErrorKind::ConnectionRefused)
}

fn full() -> ObjectError {
    of_system(ErrorKind::StorageFull)
}

fn read_only() -> ObjectError {
    of_system(ErrorKind::ReadOnlyFilesystem)
}

fn forbidden() -> ObjectError {
    ObjectError::PermissionDenied { path: "secret/path".to_owned(), source: "403".into() }
}

fn expired() -> ObjectError {
    let source = "Server returned non-2xx status code: 400 Bad Request: <Code>ExpiredToken</Code>".into();
    ObjectError::Generic { store: "S3", source }
}

/// A store in memory that does what it is asked, or says why not.
#[derive(Debug, Default)]
struct Moody {
    store: InMemory,
    reads: Mutex<Option<Excuse>>,
    writes: Mutex<Option<Excuse>>,
    asked: AtomicUsize,
}

impl Moody {
    fn mood(&self, of: &Mutex<Option<Excuse>>) -> Done<()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        of.lock().unwrap().map_or(Ok(()), |excuse| Err(excuse()))
    }

    fn set_reads(&self, excuse: Option<Excuse>) {
        *self.reads.lock().unwrap() = excuse;
    }

    fn set_writes(&self, excuse: Option<Excuse>) {
        *self.writes.lock().unwrap() = excuse;
    }

    /// How often it was asked since the last look.
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

impl fmt::Display for Moody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("moody")
    }
}

#[tonic::async_trait]
impl ObjectStore for Moody {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Done<PutResult> {
        self.mood(&self.writes)?;
        self.store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Done<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Done<GetResult> {
        self.mood(&self.reads)?;
        self.store.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Done<Path>>) -> BoxStream<'static, Done<Path>> {
        self.store.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Done<ObjectMeta>> {
        match self.mood(&self.reads) {
            Ok(()) => self.store.list(prefix),
            Err(error) => Box::pin(futures::stream::once(async { Err(error) })),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Done<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Done<()> {
        self.store.copy_opts(from, to, options).await
    }
}

/// A catalogue over a moody store, with room for one adapter in memory. `one` and `two` are stored, `two` is in memory.
async fn moody() -> (Catalogue, Arc<Moody>, Arc<Metrics>) {
    let (objects, metrics) = (Arc::new(Moody::default()), Arc::<Metrics>::default());
    let store = Store::over((Arc::clone(&objects) as _, Path::default(), None), metrics.store_faults.clone());
    let config = CatalogueConfig { location: None, ..config(std::path::Path::new("."), 256, NEVER) };
    let catalogue = Catalogue::new(config, Some(store), Arc::clone(&metrics));
    put(&catalogue, &home("a"), "one", 1.0).await;
    put(&catalogue, &home("a"), "two", 2.0).await;
    (catalogue, objects, metrics)
}

/// What the catalogue's watch does at each look.
async fn look(catalogue: &Catalogue) {
    let _ = catalogue.refresh().await;
    catalogue.store().unwrap().probe().await;
}

fn standing(metrics: &Metrics) -> Vec<(StoreWork, StoreFault)> {
    metrics.store_faults.standing().iter().map(|standing| (standing.work, standing.fault)).collect()
}

#[tokio::test]
async fn while_nothing_can_be_read_what_is_in_memory_is_served() {
    let cases: [(Excuse, StoreFault); 3] =
        [(refused, StoreFault::Unreachable), (forbidden, StoreFault::Denied), (expired, StoreFault::Denied)];
    for (excuse, fault) in cases {
        let (catalogue, objects, metrics) = moody().await;
        assert_eq!(value(&catalogue, "a", "two").await, Ok(2.0));
        objects.set_reads(Some(excuse));
        look(&catalogue).await;
        assert_eq!(standing(&metrics), [(StoreWork::List, fault)]);
        objects.asked();
        for _ in 0..3 {
            assert_eq!(value(&catalogue, "a", "two").await, Ok(2.0), "{fault:?}");
            let error = catalogue.acquire(&tenant("a"), &wanted("one")).await.unwrap_err();
            assert!(matches!(error, CatalogueError::Load(LoadError::Failed { .. })), "{error}");
            let error = catalogue.acquire(&tenant("a"), &wanted("elsewhere")).await.unwrap_err();
            assert!(
                matches!(error, CatalogueError::Store(StoreError::Down(known)) if known == fault),
                "{error}"
            );
        }
        assert_eq!(objects.asked(), 0, "what is known to fail is not asked by every request");
        objects.set_reads(None);
        look(&catalogue).await;
        assert_eq!(standing(&metrics), []);
        assert_eq!(value(&catalogue, "a", "one").await, Ok(1.0));
        let error = catalogue.acquire(&tenant("a"), &wanted("elsewhere")).await.unwrap_err();
        assert!(matches!(error, CatalogueError::Unknown { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_load_that_fails_is_tried_again_at_the_next_look() {
    let (catalogue, objects, metrics) = moody().await;
    // The request is the first to notice.
    objects.set_reads(Some(refused));
    assert!(value(&catalogue, "a", "one").await.is_err());
    assert_eq!(standing(&metrics), [(StoreWork::Read, StoreFault::Unreachable)]);
    objects.set_reads(Some(forbidden));
    catalogue.store().unwrap().probe().await;
    assert_eq!(standing(&metrics), [(StoreWork::Read, StoreFault::Denied)]);
    objects.set_reads(None);
    catalogue.store().unwrap().probe().await;
    assert_eq!(standing(&metrics), []);
    assert_eq!(value(&catalogue, "a", "one").await, Ok(1.0));
}

#[tokio::test]
async fn one_object_that_can_not_be_read_keeps_nobody_from_the_others() {
    let (catalogue, objects, metrics) = moody().await;
    objects.set_reads(Some(forbidden));
    assert!(value(&catalogue, "a", "one").await.is_err());
    assert_eq!(standing(&metrics), [(StoreWork::Read, StoreFault::Denied)]);
    // Nobody has looked since: the next request asks for itself.
    objects.set_reads(None);
    assert_eq!(value(&catalogue, "a", "one").await, Ok(1.0));
    assert_eq!(standing(&metrics), []);
}

#[tokio::test]
async fn while_nothing_can_be_written_nothing_changes() {
    let cases: [(Excuse, StoreFault); 3] =
        [(full, StoreFault::Full), (read_only, StoreFault::Denied), (refused, StoreFault::Unreachable)];
    for (excuse, fault) in cases {
        let (catalogue, objects, metrics) = moody().await;
        objects.set_writes(Some(excuse));
        let put_two = async |number| {
            catalogue.put(&home("a"), &name("two"), files(number, 2), Precondition::None).await
        };
        let error = put_two(3.0).await.unwrap_err();
        assert!(matches!(&error, CatalogueError::Store(store) if store.fault() == Some(fault)), "{error}");
        assert_eq!(standing(&metrics), [(StoreWork::Write, fault)]);
        look(&catalogue).await;
        assert_eq!(standing(&metrics), [(StoreWork::Write, fault)], "it was tried again in vain");
        assert_eq!(value(&catalogue, "a", "two").await, Ok(2.0));
        assert_eq!(value(&catalogue, "a", "one").await, Ok(1.0), "what is stored can be read");
        objects.set_writes(None);
        look(&catalogue).await;
        assert_eq!(standing(&metrics), [], "nobody had to upload to find out");
        assert_eq!(put_two(3.0).await.unwrap().change, Change::Updated);
        assert_eq!(value(&catalogue, "a", "two").await, Ok(3.0));
        let left: Vec<_> = objects.store.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
        assert!(left.iter().all(|path: &Path| !path.as_ref().contains("probe")), "{left:?}");
    }
}
