//! A whole server without its doors, in a temporary folder, with time and faults in the hands of
//! the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use tempfile::TempDir;

use crate::auth::caller::Caller;
use crate::blobs::BlobStore;
use crate::blobs::faulty::{Faults, FaultyStore};
use crate::catalog::keys::find_key;
use crate::catalog::remotes::StoredRemote;
use crate::catalog::replication::{self, Job, JobFilter};
use crate::catalog::{buckets, files, remotes, streams, usage};
use crate::clock::{Clock, ManualClock};
pub(crate) use crate::config::{Config, LargeMetadata};
use crate::domain::bucket::Bucket;
use crate::domain::digest::Sha1Digest;
use crate::domain::encryption::AskedEncryption;
use crate::domain::file::{Action, FileInfo, FileVersion};
use crate::domain::ids::{AccountId, BucketId, KeyId};
use crate::domain::key::Key;
use crate::domain::lock::FileLock;
use crate::domain::names::FileName;
use crate::domain::range::Wanted;
use crate::domain::remote::{Remote, RemoteOptions, StreamId};
use crate::domain::replication::{
    AsDestination, AsSource, JobState, ReplicationConfiguration, ReplicationRule,
};
use crate::domain::stream::{
    MAX_AGE_S_DEFAULT, QUEUE_BYTES_DEFAULT, QueueSums, Stream, StreamOptions,
};
use crate::domain::time::Millis;
use crate::entropy::SeededEntropy;
use crate::house::{self, Opened, Parts};
use crate::operations::App;
use crate::operations::accounts::{FirstAccount, NewAccount, create_account, ensure_first_account};
use crate::operations::authorize::{upload_pair, upload_ticket};
use crate::operations::buckets::{BucketChange, NewBucket, create_bucket, update_bucket};
use crate::operations::download::{Content, DownloadQuery, find_by_id};
use crate::operations::error::Error;
use crate::operations::keys::{NewKey, create_key};
use crate::operations::remote_tokens::seal_token;
use crate::operations::upload::{Announced, DeclaredSha1, NewFile, OnlyIf, upload};
use crate::replication::destination::fake::FakeRemote;
use crate::replication::destination::faulty::{FaultPlan, Faulty};
use crate::replication::destination::local::Local;
use crate::replication::{Engine, EngineOptions};

/// The moment at which every test house opens.
pub(crate) const OPENED_AT: Millis = Millis(1_700_000_000_000);

/// The rights that replication needs on each side.
pub(crate) const SOURCE_RIGHTS: [&str; 3] =
    ["readFiles", "readFileLegalHolds", "readFileRetentions"];
pub(crate) const DESTINATION_RIGHTS: [&str; 3] =
    ["writeFiles", "writeFileLegalHolds", "writeFileRetentions"];

/// A server in the hands of a test.
pub(crate) struct TestHouse {
    pub(crate) app: Arc<App>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) clock: Arc<ManualClock>,
    /// Faults of destinations.
    pub(crate) plan: Arc<FaultPlan>,
    /// What all remotes are.
    pub(crate) remote: FakeRemote,
    /// Faults of the blob store.
    pub(crate) blob_faults: Arc<Faults>,
    pub(crate) caller: Caller,
    options: EngineOptions,
    opened: Option<Opened>,
    config: Config,
    entropy: Arc<SeededEntropy>,
    _folder: TempDir,
}

fn parts(clock: &Arc<ManualClock>, entropy: &Arc<SeededEntropy>, faults: &Arc<Faults>) -> Parts {
    let faults = Arc::clone(faults);
    Parts {
        clock: Arc::<ManualClock>::clone(clock),
        entropy: Arc::<SeededEntropy>::clone(entropy),
        wrap_blobs: Box::new(move |blobs| {
            let faulty: Arc<dyn BlobStore> = Arc::new(FaultyStore::new(blobs, faults));
            faulty
        }),
    }
}

fn engine_of(
    app: &Arc<App>,
    options: &EngineOptions,
    plan: &Arc<FaultPlan>,
    remote: &FakeRemote,
) -> Arc<Engine> {
    let faulty = Faulty { inner: Arc::new(Local), plan: Arc::clone(plan) };
    Engine::new(Arc::clone(app), options.clone(), Arc::new(faulty), Arc::new(remote.clone()))
}

impl TestHouse {
    pub(crate) async fn open() -> Self {
        Self::open_with(EngineOptions::default(), |_| {}).await
    }

    pub(crate) async fn open_with(
        options: EngineOptions,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::open_below(&std::env::temp_dir(), options, change).await
    }

    pub(crate) async fn open_configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::open_with(EngineOptions::default(), change).await
    }

    /// For very many short lives: in memory where there is such a folder, because there a flush
    /// costs nothing. What it promises to survive is a crash of the process, not of the machine.
    pub(crate) async fn open_in_memory() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self::open_below(&folder, EngineOptions::default(), |_| {}).await
    }

    async fn open_below(
        folder: &std::path::Path,
        options: EngineOptions,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("kiln-house-").tempdir_in(folder).unwrap();
        let mut config = Config::on_free_ports(&folder.path().join("data"), &[]).unwrap();
        change(&mut config);
        let clock = Arc::new(ManualClock::at(OPENED_AT));
        let entropy = Arc::new(SeededEntropy::new(7));
        let blob_faults = Faults::new();
        let opened = open_off_runtime(&config, parts(&clock, &entropy, &blob_faults)).await;
        let app = Arc::clone(&opened.app);
        let made = ensure_first_account(&app, None).await.unwrap();
        let FirstAccount::Made(NewAccount { id: account, .. }) = made else {
            panic!("a new folder has no account");
        };
        let plan = Arc::new(FaultPlan::default());
        let remote = FakeRemote::new();
        let engine = engine_of(&app, &options, &plan, &remote);
        let caller = master_of(&app, account);
        Self {
            app,
            engine,
            clock,
            plan,
            remote,
            blob_faults,
            caller,
            options,
            opened: Some(opened),
            config,
            entropy,
            _folder: folder,
        }
    }

    /// Ends the process as a crash would, as far as the data folder can tell, and opens it again.
    /// Leases of before are lost; nothing in memory survives.
    pub(crate) async fn crash_and_reopen(&mut self) {
        let account = self.caller.account();
        self.app.catalog.close();
        self.opened = None;
        let parts = parts(&self.clock, &self.entropy, &self.blob_faults);
        let opened = open_off_runtime(&self.config, parts).await;
        self.app = Arc::clone(&opened.app);
        self.opened = Some(opened);
        self.engine = engine_of(&self.app, &self.options, &self.plan, &self.remote);
        self.caller = master_of(&self.app, account);
    }

    /// Removes the bytes that uploads without an end left behind; answers of how many blobs.
    pub(crate) async fn sweep_orphans(&self) -> u64 {
        let sweep = crate::jobs::sweep::Sweep::new(Arc::clone(&self.app), 0);
        sweep.remove_orphans(self.app.numbers.blob(self.clock.now())).await.unwrap()
    }

    /// Removes what nothing shows any more, without a grace. What a blob is made of is freed when
    /// the blob goes, so it takes several rounds.
    pub(crate) async fn sweep_freed(&self) {
        let sweep = crate::jobs::sweep::Sweep::new(Arc::clone(&self.app), 0);
        while sweep.remove_freed().await.unwrap() > 0 {}
    }

    /// One look of the upkeep.
    pub(crate) async fn upkeep(&self) {
        crate::jobs::upkeep::Upkeep::new(Arc::clone(&self.app)).look().await.unwrap();
    }

    /// What every bucket stores was counted as it is.
    pub(crate) fn assert_booked_right(&self, what: &str) {
        let (_, wrong) = self.app.catalog.read(|tx| Ok(usage::differences(tx)?)).unwrap();
        assert!(wrong.is_empty(), "{what}: counted and recounted differ: {wrong:?}");
    }

    pub(crate) fn data_dir(&self) -> &std::path::Path {
        &self.config.data_dir
    }

    pub(crate) async fn another_account(&self) -> Caller {
        let made = create_account(&self.app, "another", None).await.unwrap();
        master_of(&self.app, made.id)
    }

    pub(crate) async fn bucket(&self, name: &str) -> BucketId {
        self.bucket_of(&self.caller, name).await
    }

    pub(crate) async fn bucket_of(&self, caller: &Caller, name: &str) -> BucketId {
        let wanted = NewBucket {
            name: name.to_owned(),
            kind: "allPrivate".to_owned(),
            ..NewBucket::default()
        };
        create_bucket(&self.app, caller, wanted).await.unwrap().id
    }

    pub(crate) async fn key(&self, capabilities: &[&str]) -> KeyId {
        self.key_of(&self.caller.clone(), capabilities, None, None, None).await.id
    }

    pub(crate) async fn key_of(
        &self,
        caller: &Caller,
        capabilities: &[&str],
        buckets: Option<&[BucketId]>,
        prefix: Option<&str>,
        duration_s: Option<i64>,
    ) -> Key {
        let wanted = NewKey {
            name: "test-key".to_owned(),
            capabilities: capabilities.iter().map(|&one| one.to_owned()).collect(),
            buckets: buckets.map(|ids| ids.iter().map(BucketId::to_string).collect()),
            name_prefix: prefix.map(str::to_owned),
            duration_s,
            version: 4,
        };
        create_key(&self.app, caller, wanted).await.unwrap().0
    }

    pub(crate) async fn delete_key(&self, id: &KeyId) {
        let deleted = crate::operations::keys::delete_key(&self.app, &self.caller, id.as_str(), 4);
        deleted.await.unwrap();
    }

    pub(crate) async fn configure(
        &self,
        bucket: BucketId,
        replication: ReplicationConfiguration,
    ) -> Result<Bucket, Error> {
        self.configure_as(&self.caller, bucket, replication).await
    }

    pub(crate) async fn configure_as(
        &self,
        caller: &Caller,
        bucket: BucketId,
        replication: ReplicationConfiguration,
    ) -> Result<Bucket, Error> {
        let change = BucketChange { replication: Some(replication), ..BucketChange::default() };
        update_bucket(&self.app, caller, &bucket.to_string(), change).await
    }

    /// A stream from a bucket to a remote of its own.
    pub(crate) async fn stream(
        &self,
        bucket: BucketId,
        change: impl FnOnce(&mut Stream),
    ) -> StreamId {
        let account = self.caller.account();
        let now = self.clock.now();
        let (remote, id) = self
            .app
            .catalog
            .write("test_ids", |tx| Ok((remotes::take_id(tx)?, streams::take_id(tx)?)))
            .await
            .unwrap();
        let remote = Remote {
            id: remote,
            account,
            org_id: account.to_string(),
            name: format!("remote-{remote}"),
            description: None,
            url: "https://remote.example".to_owned(),
            remote_org_id: None,
            allow_insecure_tls: false,
            options: RemoteOptions::default(),
            created_at: now,
            updated_at: now,
        };
        let mut stream = Stream {
            id,
            account,
            org_id: account.to_string(),
            name: "stream".to_owned(),
            description: None,
            remote: remote.id,
            local_bucket: bucket,
            remote_bucket_id: None,
            remote_bucket_name: "remote-files".to_owned(),
            max_queue_bytes: QUEUE_BYTES_DEFAULT,
            max_age_s: MAX_AGE_S_DEFAULT,
            drop_non_retryable: false,
            is_paused: false,
            options: StreamOptions::default(),
            sums: QueueSums::default(),
            latest: None,
            created_at: now,
            updated_at: now,
        };
        change(&mut stream);
        let sealed_token = seal_token(&self.app, remote.id, "id:secret").unwrap();
        let stored = StoredRemote { remote, sealed_token };
        let made = self.app.catalog.write("test_stream", move |tx| {
            remotes::insert_remote(tx, &stored)?;
            Ok(streams::insert_stream(tx, &stream)?)
        });
        made.await.unwrap();
        id
    }

    /// Two buckets with a rule between them and keys with exactly the rights needed.
    pub(crate) async fn pair(&self) -> Pair {
        let (source, destination) = (self.bucket("source").await, self.bucket("target").await);
        let source_key = self.key(&SOURCE_RIGHTS).await;
        let destination_key = self.key(&DESTINATION_RIGHTS).await;
        self.configure(destination, mapping(&source_key, &destination_key)).await.unwrap();
        self.configure(source, rules(&source_key, vec![rule("rule-one", destination)]))
            .await
            .unwrap();
        Pair { source, destination, source_key, destination_key }
    }

    pub(crate) async fn upload(&self, bucket: BucketId, name: &str, body: &[u8]) -> FileVersion {
        self.try_upload(bucket, name, body, FileInfo::default()).await.unwrap()
    }

    pub(crate) async fn try_upload(
        &self,
        bucket: BucketId,
        name: &str,
        body: &[u8],
        info: FileInfo,
    ) -> Result<FileVersion, Error> {
        self.try_upload_locked(bucket, name, body, info, FileLock::default()).await
    }

    pub(crate) async fn upload_encrypted(
        &self,
        bucket: BucketId,
        name: &str,
        body: &[u8],
        encryption: AskedEncryption,
    ) -> Result<FileVersion, Error> {
        let (info, lock) = (FileInfo::default(), FileLock::default());
        self.upload_with(bucket, name, body, info, (lock, encryption)).await
    }

    pub(crate) async fn try_upload_locked(
        &self,
        bucket: BucketId,
        name: &str,
        body: &[u8],
        info: FileInfo,
        lock: FileLock,
    ) -> Result<FileVersion, Error> {
        self.upload_with(bucket, name, body, info, (lock, AskedEncryption::Default)).await
    }

    async fn upload_with(
        &self,
        bucket: BucketId,
        name: &str,
        body: &[u8],
        info: FileInfo,
        (lock, encryption): (FileLock, AskedEncryption),
    ) -> Result<FileVersion, Error> {
        let caller = self.owner_of(bucket);
        let pair = upload_pair(&self.app, &caller, &bucket.to_string())?;
        let ticket = upload_ticket(&self.app, &pair.token, &bucket.to_string(), &pair.mark)?;
        let mut hasher = crate::domain::digest::Hasher::new();
        hasher.update(body);
        let file = NewFile {
            name: FileName::parse(name)?,
            content_type: "text/plain".to_owned(),
            info,
            lock,
            encryption,
            body: Announced {
                body_bytes: body.len() as u64,
                sha1: DeclaredSha1::Is(hasher.finish().sha1),
                md5: None,
            },
            custom_time: None,
            replica: None,
            only_if: OnlyIf::Anyway,
        };
        let chunk = Bytes::copy_from_slice(body);
        upload(&self.app, &ticket, file, stream::iter([Ok(chunk)])).await
    }

    fn owner_of(&self, bucket: BucketId) -> Caller {
        let known = self.app.facts.bucket(&self.app.catalog, bucket).unwrap().unwrap();
        master_of(&self.app, known.value.account)
    }

    pub(crate) fn bucket_now(&self, id: BucketId) -> Option<Bucket> {
        self.app.catalog.read(|tx| Ok(buckets::find_by_id(tx, id)?)).unwrap()
    }

    /// All versions in a bucket, newest first within a name.
    pub(crate) fn versions(&self, id: BucketId) -> Vec<FileVersion> {
        let Some(bucket) = self.bucket_now(id) else { return Vec::new() };
        let mut all = Vec::new();
        let start = files::Start::Name(String::new());
        self.app
            .catalog
            .read(|tx| {
                files::walk_versions(tx, (bucket.number, id), &start, &mut |version| {
                    all.push(version);
                    true
                })?;
                Ok(())
            })
            .unwrap();
        all
    }

    /// The bytes of a version, whole.
    pub(crate) async fn content(&self, version: &FileVersion) -> Vec<u8> {
        let query = DownloadQuery {
            if_range: None,
            range: Wanted::Whole,
            overrides: BTreeMap::new(),
            by_a_page: false,
            key: None,
        };
        let id = version.id().to_string();
        let download = find_by_id(&self.app, Some(&self.caller), &id, query).unwrap();
        match download.open(&self.app).await.unwrap().0 {
            Content::Inline(bytes) => bytes.to_vec(),
            Content::Stored(mut reader) => {
                let mut all = Vec::new();
                while let Some(chunk) = reader.next(&self.app).await {
                    all.extend_from_slice(&chunk.unwrap());
                }
                all
            }
        }
    }

    /// The status that a version shows now.
    pub(crate) fn status(&self, version: &FileVersion) -> Option<&'static str> {
        let now = self.versions(version.bucket).into_iter().find(|v| v.number == version.number);
        now.unwrap().replication.map(crate::domain::replication::ReplicationStatus::as_str)
    }

    pub(crate) fn jobs(&self) -> Vec<Job> {
        let filter = JobFilter::default();
        self.app.catalog.read(|tx| Ok(replication::list_jobs(tx, &filter, 100_000)?)).unwrap()
    }

    /// The reason of the one job there is, with its state.
    pub(crate) fn only_job(&self) -> (JobState, Option<String>) {
        let jobs = self.jobs();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        (jobs[0].state, jobs[0].last_reason.clone())
    }

    /// Steps until nothing is due; answers how many jobs were run.
    pub(crate) async fn settle(&self) -> usize {
        let mut steps = 0;
        while self.engine.step_once().await.unwrap() {
            steps += 1;
            assert!(steps < 100_000, "the engine never comes to an end");
        }
        steps
    }

    /// Steps and moves the clock until no job is unfinished.
    pub(crate) async fn drain(&self) {
        for _ in 0..200 {
            self.settle().await;
            if self.jobs().iter().all(|job| !job.state.is_unfinished()) {
                return;
            }
            self.clock.advance(1_000_000);
        }
        panic!("unfinished jobs stay: {:?}", self.jobs());
    }

    pub(crate) fn find_key(&self, id: &KeyId) -> Option<Key> {
        let found = self.app.catalog.read(|tx| Ok(find_key(tx, id)?)).unwrap();
        found.map(|stored| stored.key)
    }
}

/// Opening waits for the catalog on a runtime of its own, which a test's runtime forbids.
async fn open_off_runtime(config: &Config, parts: Parts) -> Opened {
    let config = config.clone();
    let parts = Mutex::new(Some(parts));
    tokio::task::spawn_blocking(move || {
        let parts = parts.lock().unwrap().take().unwrap();
        house::open(&config, parts).unwrap()
    })
    .await
    .unwrap()
}

fn master_of(app: &App, account: AccountId) -> Caller {
    let known = app.facts.key(&app.catalog, &KeyId::master(account)).unwrap().unwrap();
    Caller { key: known.value, config_version: known.config_version }
}

/// What [`TestHouse::pair`] makes.
pub(crate) struct Pair {
    pub(crate) source: BucketId,
    pub(crate) destination: BucketId,
    pub(crate) source_key: KeyId,
    pub(crate) destination_key: KeyId,
}

pub(crate) fn rule(name: &str, destination: BucketId) -> ReplicationRule {
    ReplicationRule {
        destination_bucket_id: destination.to_string(),
        file_name_prefix: String::new(),
        include_existing_files: false,
        is_enabled: true,
        priority: 1,
        name: name.to_owned(),
    }
}

pub(crate) fn rules(source_key: &KeyId, rules: Vec<ReplicationRule>) -> ReplicationConfiguration {
    ReplicationConfiguration {
        as_replication_source: Some(AsSource {
            replication_rules: rules,
            source_application_key_id: source_key.as_str().to_owned(),
        }),
        as_replication_destination: None,
    }
}

pub(crate) fn mapping(source_key: &KeyId, destination_key: &KeyId) -> ReplicationConfiguration {
    let mapping = [(source_key.as_str().to_owned(), destination_key.as_str().to_owned())];
    ReplicationConfiguration {
        as_replication_source: None,
        as_replication_destination: Some(AsDestination {
            source_to_destination_key_mapping: mapping.into_iter().collect(),
        }),
    }
}

/// The uploads among versions.
pub(crate) fn uploads(versions: &[FileVersion]) -> Vec<&FileVersion> {
    versions.iter().filter(|version| version.action == Action::Upload).collect()
}

/// The SHA-1 of a version, for comparing content.
pub(crate) fn sha1_of(version: &FileVersion) -> Sha1Digest {
    version.sha1.digest().unwrap()
}
