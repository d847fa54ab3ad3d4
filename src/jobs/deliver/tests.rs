//! The delivery step by step: what is sent, what stays after a failure or a crash, when a rule is
//! suspended and how it comes back.

use std::collections::VecDeque;

use serde_json::Value;

use super::*;
use crate::auth::caller::Caller;
use crate::clock::Clock;
use crate::domain::event::{Target, WantedRule};
use crate::domain::ids::BucketId;
use crate::domain::key::Secret;
use crate::domain::refusal::Code;
use crate::operations::files::{delete_version, hide_file};
use crate::operations::notifications::{
    QueueQuery, ShownRule, bucket_rules, list_queues, set_bucket_rules,
};
use crate::testing::TestHouse;

const SECRET: &str = "abcdefghijklmnopqrstuvwxyz012345";
const HOUR_MS: i64 = 60 * 60 * 1000;

/// What arrived at a target.
#[derive(Clone, Debug)]
struct Arrived {
    host: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Arrived {
    fn events(&self) -> Vec<Value> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body["events"].as_array().unwrap().clone()
    }
}

/// Takes every call, and answers as the test said: by host, else in turn, else with 200.
#[derive(Default)]
struct Script {
    arrived: Mutex<Vec<Arrived>>,
    answers: Mutex<VecDeque<HookFault>>,
    dead_hosts: Mutex<Vec<String>>,
    /// Chokes on bodies that hold this text.
    poison: Mutex<Option<String>>,
    /// Never answers.
    hangs: AtomicBool,
    /// These never answer either.
    hanging_hosts: Mutex<Vec<String>>,
}

impl Courier for Script {
    fn post(&self, call: HookCall) -> BoxFuture<'_, Result<(), HookError>> {
        let arrived = Arrived {
            host: call.url.host_and_port(),
            headers: call.headers,
            body: call.body.clone(),
        };
        let dead = self.dead_hosts.lock().unwrap().contains(&arrived.host);
        let hangs = self.hangs.load(Ordering::SeqCst)
            || self.hanging_hosts.lock().unwrap().contains(&arrived.host);
        let text = String::from_utf8_lossy(&arrived.body).into_owned();
        let chokes = self.poison.lock().unwrap().as_ref().is_some_and(|word| text.contains(word));
        self.arrived.lock().unwrap().push(arrived);
        let answer = if dead || chokes {
            Some(HookFault::Status(500))
        } else {
            self.answers.lock().unwrap().pop_front()
        };
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            match answer {
                None => Ok(()),
                Some(fault) => Err(HookError { fault, detail: String::new() }),
            }
        }
        .boxed()
    }
}

impl Script {
    fn fail_next(&self, times: usize) {
        self.answers.lock().unwrap().extend(vec![HookFault::Status(503); times]);
    }

    fn set_dead(&self, hosts: &[&str]) {
        *self.dead_hosts.lock().unwrap() = hosts.iter().map(|&one| one.to_owned()).collect();
    }

    /// Everything that arrived since the last look.
    fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.arrived.lock().unwrap())
    }

    fn take_events(&self) -> Vec<Value> {
        self.take().iter().flat_map(Arrived::events).collect()
    }
}

struct Fixture {
    house: TestHouse,
    script: Arc<Script>,
    delivery: Arc<Delivery>,
    bucket: BucketId,
}

fn wanted(name: &str, types: &[&str], prefix: &str) -> WantedRule {
    WantedRule {
        name: name.to_owned(),
        event_types: types.iter().map(|&one| one.to_owned()).collect(),
        is_enabled: true,
        object_name_prefix: prefix.to_owned(),
        batch_max_of_rule: None,
        batch_max_of_target: None,
        target_type: "webhook".to_owned(),
        target: Target {
            url: "https://one.example/hook?k=path-secret".to_owned(),
            custom_headers: None,
            signing_secret: None,
        },
    }
}

fn everything() -> Vec<WantedRule> {
    vec![
        wanted("rule-created", &["b2:ObjectCreated:*"], ""),
        wanted("rule-deleted", &["b2:ObjectDeleted:*"], ""),
        wanted("rule-hidden", &["b2:HideMarkerCreated:*"], ""),
    ]
}

impl Fixture {
    async fn open() -> Self {
        Self::of(TestHouse::open_configured(|_| {}).await).await
    }

    async fn of(house: TestHouse) -> Self {
        let bucket = house.bucket("watched").await;
        let script = Arc::new(Script::default());
        let delivery = delivery_of(&house, &script);
        Self { house, script, delivery, bucket }
    }

    fn caller(&self) -> &Caller {
        &self.house.caller
    }

    async fn try_set(&self, rules: Vec<WantedRule>) -> Result<Vec<ShownRule>, Error> {
        let id = self.bucket.to_string();
        set_bucket_rules(&self.house.app, self.caller(), &id, rules).await.map(|(_, shown)| shown)
    }

    async fn set(&self, rules: Vec<WantedRule>) -> Vec<ShownRule> {
        self.try_set(rules).await.unwrap()
    }

    /// Sets rules and lets their test events arrive.
    async fn set_quietly(&self, rules: Vec<WantedRule>) {
        self.set(rules).await;
        self.deliver_all().await;
        self.script.take();
    }

    fn rules(&self) -> Vec<ShownRule> {
        let id = self.bucket.to_string();
        bucket_rules(&self.house.app, self.caller(), &id).unwrap().1
    }

    /// Steps without moving the clock until nothing is due; answers how many attempts were made.
    async fn deliver_all(&self) -> usize {
        let mut attempts = 0;
        loop {
            match self.delivery.step().await.unwrap() {
                0 => return attempts,
                made => attempts += made,
            }
            assert!(attempts < 10_000, "delivery never comes to an end");
        }
    }

    /// Moves the clock to the moment at which a rule is tried again.
    fn wait_for(&self, rule: &str) {
        let wait_ms = self.queue(rule).next_attempt_at.0 - self.house.app.waits.now().0;
        self.house.clock.advance(wait_ms.max(0));
    }

    async fn hide(&self, name: &str) -> Result<crate::domain::file::FileVersion, Error> {
        let id = self.bucket.to_string();
        hide_file(&self.house.app, self.caller(), &id, name).await
    }

    async fn upload(&self, name: &str) -> crate::domain::file::FileVersion {
        self.house.upload(self.bucket, name, b"content").await
    }

    fn queue(&self, rule: &str) -> Queue {
        let operator = crate::operations::accounts::Operator::of_data_folder();
        let page = list_queues(&self.house.app, &operator, &QueueQuery::default()).unwrap();
        page.queues.into_iter().find(|shown| shown.queue.rule_name == rule).unwrap().queue
    }

    fn waiting(&self) -> i64 {
        crate::operations::notifications::count_queues(&self.house.app).unwrap().0
    }

    /// Ends the process as a crash would and opens the folder again.
    async fn crash(&mut self) {
        self.house.crash_and_reopen().await;
        self.delivery = delivery_of(&self.house, &self.script);
    }
}

fn delivery_of(house: &TestHouse, script: &Arc<Script>) -> Arc<Delivery> {
    Delivery::new(Arc::clone(&house.app), Arc::<Script>::clone(script), 8)
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["eventType"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn native_379_380_each_change_of_a_file_is_told_once_with_its_eleven_members() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    let file = fixture.upload("a/b.txt").await;
    fixture.house.clock.advance(10);
    let marker = fixture.hide("a/b.txt").await.unwrap();
    for id in [file.id().to_string(), marker.id().to_string()] {
        let deleted = delete_version(&fixture.house.app, fixture.caller(), "a/b.txt", &id, false);
        deleted.await.unwrap();
    }
    assert_eq!(fixture.waiting(), 4);
    fixture.deliver_all().await;
    let mut events = fixture.script.take_events();
    events.sort_by_key(|event| event["eventTimestamp"].as_i64());
    let mut told = types(&events);
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "b2:HideMarkerCreated:Hide",
            "b2:ObjectCreated:Upload",
            "b2:ObjectDeleted:Delete",
            "b2:ObjectDeleted:Delete"
        ]
    );
    let upload = &events[0];
    let members: Vec<&String> = upload.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "accountId",
            "bucketId",
            "bucketName",
            "eventId",
            "eventTimestamp",
            "eventType",
            "eventVersion",
            "matchedRuleName",
            "objectName",
            "objectSize",
            "objectVersionId"
        ]
    );
    assert_eq!(upload["accountId"], fixture.caller().account().to_string());
    assert_eq!(upload["bucketId"], fixture.bucket.to_string());
    assert_eq!(upload["bucketName"], "watched");
    assert_eq!(upload["eventVersion"], 1);
    assert_eq!(upload["eventTimestamp"], file.written_at.0);
    assert_eq!(upload["matchedRuleName"], "rule-created");
    assert_eq!(upload["objectName"], "a/b.txt");
    assert_eq!(upload["objectSize"], 7);
    assert_eq!(upload["objectVersionId"], file.id().to_string());
    let hide =
        events.iter().find(|event| event["eventType"] == "b2:HideMarkerCreated:Hide").unwrap();
    assert_eq!(
        (&hide["objectSize"], &hide["objectVersionId"]),
        (&0.into(), &marker.id().to_string().into())
    );
    let ids: std::collections::BTreeSet<&str> =
        events.iter().map(|event| event["eventId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 4, "each event has an id of its own");
    assert_eq!((fixture.waiting(), fixture.deliver_all().await), (0, 0));
}

#[tokio::test]
async fn native_379_replication_112_a_replica_is_told_at_its_destination_as_such() {
    let fixture = Fixture::open().await;
    let pair = fixture.house.pair().await;
    let caller = fixture.caller();
    for bucket in [pair.source, pair.destination] {
        let rules = vec![wanted("rule-one", &["b2:ObjectCreated:Replica"], "")];
        set_bucket_rules(&fixture.house.app, caller, &bucket.to_string(), rules).await.unwrap();
    }
    fixture.deliver_all().await;
    fixture.script.take();
    fixture.house.upload(pair.source, "f", b"x").await;
    fixture.house.settle().await;
    fixture.deliver_all().await;
    let events = fixture.script.take_events();
    assert_eq!(types(&events), ["b2:ObjectCreated:Replica"]);
    assert_eq!(events[0]["bucketId"], pair.destination.to_string());
    let replica = &fixture.house.versions(pair.destination)[0];
    assert_eq!(events[0]["objectVersionId"], replica.id().to_string());
}

#[tokio::test]
async fn native_381_the_signature_is_over_the_bytes_that_are_sent() {
    let fixture = Fixture::open().await;
    let mut rule = wanted("rule-one", &["b2:ObjectCreated:*"], "");
    rule.target.signing_secret = Some(Secret::new(SECRET.to_owned()));
    rule.target.custom_headers = Some(vec![("X-Own".to_owned(), "v".to_owned())]);
    fixture.set_quietly(vec![rule]).await;
    fixture.upload("f").await;
    fixture.deliver_all().await;
    let arrived = fixture.script.take().remove(0);
    let expected = event_signature(&Secret::new(SECRET.to_owned()), &arrived.body);
    assert_eq!(
        arrived.headers,
        [
            ("X-Own".to_owned(), "v".to_owned()),
            ("X-Bz-Event-Notification-Signature".to_owned(), expected)
        ]
    );
    fixture.set_quietly(vec![wanted("rule-one", &["b2:ObjectCreated:*"], "")]).await;
    fixture.upload("f").await;
    fixture.deliver_all().await;
    assert!(fixture.script.take().remove(0).headers.is_empty(), "no secret, no signature");
}

#[tokio::test]
async fn a_new_changed_or_resumed_rule_sends_a_test_event_and_an_unchanged_one_does_not() {
    let fixture = Fixture::open().await;
    fixture.set(vec![wanted("rule-one", &["b2:ObjectCreated:*"], "")]).await;
    fixture.deliver_all().await;
    let events = fixture.script.take_events();
    let members: Vec<&String> = events[0].as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "accountId",
            "bucketId",
            "bucketName",
            "eventId",
            "eventTimestamp",
            "eventType",
            "eventVersion",
            "matchedRuleName"
        ]
    );
    assert_eq!(types(&events), ["b2:TestEvent"]);
    let told = async |rule: WantedRule| {
        fixture.set(vec![rule]).await;
        fixture.deliver_all().await;
        fixture.script.take_events().len()
    };
    let rule = || wanted("rule-one", &["b2:ObjectCreated:*"], "");
    assert_eq!(told(rule()).await, 0, "the same again");
    assert_eq!(told(WantedRule { object_name_prefix: "a".to_owned(), ..rule() }).await, 1);
    let mut with_secret = rule();
    with_secret.target.signing_secret = Some(Secret::new(SECRET.to_owned()));
    assert_eq!(told(with_secret).await, 1, "another target");
    assert_eq!(told(WantedRule { is_enabled: false, ..rule() }).await, 0, "switched off");
    assert_eq!(told(rule()).await, 1, "switched on");
}

#[tokio::test]
async fn native_382_prefix_and_switch_decide_and_what_waits_for_a_rule_goes_with_it() {
    let fixture = Fixture::open().await;
    let rule = || wanted("rule-one", &["b2:ObjectCreated:*"], "a/");
    fixture.set_quietly(vec![rule()]).await;
    for name in ["a/in", "b/out", "A/out", "a"] {
        fixture.upload(name).await;
    }
    assert_eq!(fixture.waiting(), 1);
    fixture.set(vec![WantedRule { is_enabled: false, ..rule() }]).await;
    fixture.upload("a/unheard").await;
    assert_eq!((fixture.waiting(), fixture.deliver_all().await), (0, 0));
    fixture.set_quietly(vec![rule()]).await;
    fixture.upload("a/waits").await;
    fixture.set(vec![]).await;
    assert_eq!((fixture.waiting(), fixture.deliver_all().await), (0, 0));
    assert!(fixture.script.take().is_empty(), "nobody hears of rules that are off or gone");
    assert_eq!(fixture.house.app.metrics.notification_dropped.value(), 2, "both are counted");
    let rows = "SELECT CAST(COUNT(*) AS BIGINT) FROM notification_events";
    let left = fixture
        .house
        .app
        .catalog
        .read(|tx| Ok(crate::catalog::tx::find(tx, rows, &[], |row| row.int(0))?));
    assert_eq!(left.unwrap(), Some(0), "pruned");
}

#[tokio::test]
async fn events_of_a_changed_rule_go_to_its_new_target() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.script.set_dead(&["one.example:443"]);
    fixture.upload("f").await;
    fixture.deliver_all().await;
    let failed = fixture.script.take_events();
    let mut rules = everything();
    for rule in &mut rules {
        rule.target.url = "https://two.example/".to_owned();
    }
    fixture.set(rules).await;
    fixture.deliver_all().await;
    let arrived = fixture.script.take();
    assert!(arrived.iter().all(|one| one.host == "two.example:443"), "{arrived:?}");
    let events: Vec<Value> = arrived.iter().flat_map(Arrived::events).collect();
    let again = events.iter().find(|event| event["eventType"] == "b2:ObjectCreated:Upload");
    assert_eq!(again.unwrap()["eventId"], failed[0]["eventId"]);
}

#[tokio::test]
async fn native_383_a_failed_delivery_is_repeated_with_the_same_id_ever_more_slowly() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.script.fail_next(4);
    fixture.upload("f").await;
    for wait_ms in [1000, 2000, 4000, 8000] {
        assert_eq!(fixture.deliver_all().await, 1);
        fixture.house.clock.advance(wait_ms - 1);
        assert_eq!(fixture.deliver_all().await, 0, "not before {wait_ms} ms");
        fixture.house.clock.advance(1);
    }
    let queue = fixture.queue("rule-created");
    assert_eq!(queue.failures, 4);
    assert_eq!(queue.last_error.as_deref(), Some("the endpoint answered with status 503"));
    assert_eq!(fixture.deliver_all().await, 1);
    let events = fixture.script.take_events();
    assert_eq!(events.len(), 5);
    assert!(events.iter().all(|event| event == &events[0]), "equal to the last letter");
    let queue = fixture.queue("rule-created");
    assert_eq!((queue.failures, queue.last_error, queue.waiting), (0, None, 0));
    assert_eq!(queue.delivered, 2, "the test event counts too");
}

#[tokio::test]
async fn native_383_a_crash_between_sending_and_noting_sends_the_same_event_again() {
    let mut fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.upload("f").await;
    fixture.script.hangs.store(true, Ordering::SeqCst);
    let delivery = Arc::clone(&fixture.delivery);
    let sending = tokio::spawn(async move { delivery.step().await });
    while fixture.script.arrived.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    sending.abort();
    assert!(sending.await.is_err());
    fixture.crash().await;
    fixture.script.hangs.store(false, Ordering::SeqCst);
    assert_eq!(fixture.waiting(), 1);
    assert_eq!(fixture.deliver_all().await, 1);
    let events = fixture.script.take_events();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0], events[1]);
    fixture.crash().await;
    assert_eq!(fixture.deliver_all().await, 0, "delivered once and for all");
}

#[tokio::test]
async fn after_a_day_of_failures_a_rule_is_suspended_with_a_reason_and_resumed_by_setting_it() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.script.set_dead(&["one.example:443"]);
    fixture.upload("first").await;
    let started = fixture.house.clock.now();
    while fixture.rules()[0].suspension_reason.is_empty() {
        fixture.wait_for("rule-created");
        fixture.deliver_all().await;
        assert!(fixture.house.clock.now() < started.plus(PATIENCE_MS + HOUR_MS));
    }
    assert!(fixture.house.clock.now() > started.plus(PATIENCE_MS), "not before a day is over");
    assert_eq!(
        fixture.rules()[0].suspension_reason,
        "Deliveries have failed for 24 hours, the last one because the endpoint answered with \
         status 500"
    );
    assert!(fixture.rules()[1].suspension_reason.is_empty(), "other rules go on");
    fixture.script.take();
    fixture.upload("unheard").await;
    fixture.house.clock.advance(PATIENCE_MS - 2 * HOUR_MS);
    assert_eq!(fixture.deliver_all().await, 0, "a suspended rule hears of nothing");
    assert_eq!(fixture.queue("rule-created").waiting, 1, "and keeps what it has");
    assert_eq!(fixture.queue("rule-created").dropped, 1, "what it does not hear of is counted");
    fixture.house.clock.advance(2 * HOUR_MS);
    assert_eq!(fixture.deliver_all().await, 0);
    assert_eq!(fixture.queue("rule-created").waiting, 0, "what it kept is too old by now");
    assert_eq!(fixture.queue("rule-created").dropped, 2);
    assert_eq!(fixture.house.app.metrics.notification_dropped.value(), 2);
    fixture.script.set_dead(&[]);
    let shown = fixture.set(everything()).await;
    assert!(shown.iter().all(|rule| rule.suspension_reason.is_empty()));
    assert!(fixture.rules().iter().all(|rule| rule.suspension_reason.is_empty()));
    fixture.upload("heard").await;
    fixture.deliver_all().await;
    let events = fixture.script.take_events();
    assert_eq!(types(&events), ["b2:TestEvent", "b2:ObjectCreated:Upload"]);
    assert_eq!(events[1]["objectName"], "heard");
}

#[tokio::test]
async fn a_resumed_rule_still_tells_what_it_kept() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.script.set_dead(&["one.example:443"]);
    fixture.upload("old").await;
    fixture.deliver_all().await;
    let mut attempts = 1;
    while fixture.rules()[0].suspension_reason.is_empty() {
        if attempts == ATTEMPTS_MAX - 1 {
            fixture.upload("young").await;
        }
        fixture.wait_for("rule-created");
        assert_eq!(fixture.deliver_all().await, 1);
        attempts += 1;
    }
    assert_eq!(attempts, ATTEMPTS_MAX);
    fixture.script.set_dead(&[]);
    fixture.script.take();
    fixture.set(everything()).await;
    fixture.deliver_all().await;
    let names: Vec<Value> =
        fixture.script.take_events().iter().map(|event| event["objectName"].clone()).collect();
    assert!(names.contains(&"old".into()) && names.contains(&"young".into()), "{names:?}");
}

#[tokio::test]
async fn reliability_i16_a_dead_target_delays_no_other_rule() {
    let fixture = Fixture::open().await;
    let mut rules = Vec::new();
    for at in 0..20 {
        let mut rule =
            wanted(&format!("rule-{at:02}"), &["b2:ObjectCreated:*"], &format!("{at:02}/"));
        rule.target.url = format!("https://host-{at:02}.example/");
        rules.push(rule);
    }
    fixture.set_quietly(rules).await;
    let dead: Vec<String> = (0..19).map(|at| format!("host-{at:02}.example:443")).collect();
    fixture.script.set_dead(&dead.iter().map(String::as_str).collect::<Vec<_>>());
    for at in 0..19 {
        fixture.upload(&format!("{at:02}/f")).await;
    }
    fixture.deliver_all().await;
    fixture.house.clock.advance(5000);
    fixture.upload("19/f").await;
    fixture.script.take();
    assert_eq!(
        fixture.delivery.step().await.unwrap(),
        3,
        "two of an account's four workers, and the healthy one"
    );
    let first = fixture.script.take().remove(0);
    assert_eq!(first.host, "host-19.example:443", "the healthy target comes first");
}

#[tokio::test]
async fn one_event_that_a_target_chokes_on_holds_up_no_other_and_is_given_up_after_a_day() {
    let fixture = Fixture::open().await;
    let mut rule = wanted("rule-one", &["b2:ObjectCreated:*"], "");
    rule.batch_max_of_rule = Some(10);
    fixture.set_quietly(vec![rule]).await;
    *fixture.script.poison.lock().unwrap() = Some("poison".to_owned());
    for name in ["good-1", "poison", "good-2"] {
        fixture.upload(name).await;
    }
    assert_eq!(fixture.deliver_all().await, 1, "all three together");
    for _ in 0..3 {
        fixture.house.clock.advance(2000);
        fixture.deliver_all().await;
    }
    assert_eq!(fixture.queue("rule-one").waiting, 1, "each alone, and the good ones are through");
    let started = fixture.house.clock.now();
    while fixture.queue("rule-one").waiting > 0 {
        fixture.upload("good-3").await;
        fixture.deliver_all().await;
        fixture.wait_for("rule-one");
        fixture.deliver_all().await;
        assert!(fixture.house.clock.now() < started.plus(PATIENCE_MS + HOUR_MS));
    }
    assert!(fixture.rules()[0].suspension_reason.is_empty());
    assert_eq!(fixture.queue("rule-one").dropped, 1);
}

#[tokio::test]
async fn a_wall_clock_that_jumps_neither_holds_events_back_nor_suspends_a_rule() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.script.fail_next(1);
    fixture.upload("first").await;
    fixture.deliver_all().await;
    fixture.house.clock.jump(-PATIENCE_MS);
    fixture.house.clock.advance(1000);
    fixture.upload("second").await;
    assert_eq!(fixture.deliver_all().await, 2);
    fixture.script.fail_next(1);
    fixture.upload("third").await;
    fixture.deliver_all().await;
    fixture.house.clock.jump(2 * PATIENCE_MS);
    fixture.script.fail_next(1);
    fixture.house.clock.advance(1000);
    fixture.deliver_all().await;
    assert!(fixture.rules()[0].suspension_reason.is_empty(), "two seconds are no day");
}

#[tokio::test]
async fn events_are_sent_together_up_to_the_number_a_rule_allows() {
    let fixture = Fixture::open().await;
    let mut rule = wanted("rule-one", &["b2:ObjectCreated:*"], "");
    rule.batch_max_of_target = Some(3);
    fixture.set_quietly(vec![rule]).await;
    for at in 0..7 {
        fixture.upload(&format!("f{at}")).await;
    }
    assert_eq!(fixture.deliver_all().await, 2, "two requests at a time");
    let sizes: Vec<usize> = fixture.script.take().iter().map(|one| one.events().len()).collect();
    assert_eq!(sizes, [3, 3, 1]);
}

#[tokio::test]
async fn a_full_queue_loses_what_comes_next_and_counts_it() {
    let house = TestHouse::open_configured(|config| config.notifications.queue_max = 3).await;
    let fixture = Fixture::of(house).await;
    fixture.set_quietly(everything()).await;
    for at in 0..5 {
        fixture.upload(&format!("f{at}")).await;
    }
    let queue = fixture.queue("rule-created");
    assert_eq!((queue.waiting, queue.dropped), (3, 2));
    assert_eq!(fixture.house.app.metrics.notification_dropped.value(), 2);
    assert_eq!(fixture.deliver_all().await, 2, "two, then one");
    fixture.upload("after").await;
    assert_eq!(fixture.deliver_all().await, 1);
}

fn load_of(fixture: &Fixture, rule: &str) -> Load {
    let (queue, now) = (fixture.queue(rule).number, fixture.house.app.waits.now());
    match fixture.house.app.catalog.read(|tx| find_load(tx, queue, now, 1)).unwrap() {
        Found::Work(load) => *load,
        Found::Nothing | Found::Unused => panic!("an event is due"),
    }
}

fn timed_out() -> Vec<Result<(), HookError>> {
    vec![Err(HookError { fault: HookFault::Timeout, detail: String::new() })]
}

#[tokio::test]
async fn a_rule_changed_while_its_old_target_hangs_is_not_blamed_for_it() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.upload("f").await;
    let load = load_of(&fixture, "rule-created");
    let mut rules = everything();
    rules[0].target.url = "https://two.example/".to_owned();
    fixture.set(rules).await;
    fixture.delivery.settle_attempt(load, timed_out()).await.unwrap();
    let queue = fixture.queue("rule-created");
    assert_eq!((queue.failures, queue.last_error), (0, None));
    assert_eq!(fixture.deliver_all().await, 1);
    assert_eq!(fixture.script.take().len(), 2, "the event and the test event, both at once");
}

#[tokio::test]
async fn what_an_old_target_took_is_still_told_to_the_new_one() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.upload("f").await;
    let load = load_of(&fixture, "rule-created");
    let mut rules = everything();
    rules[0].target.url = "https://two.example/".to_owned();
    fixture.set_quietly(vec![]).await;
    fixture.set_quietly(everything()).await;
    fixture.upload("g").await;
    fixture.delivery.settle_attempt(load, vec![Ok(())]).await.unwrap();
    assert_eq!(fixture.waiting(), 1, "a rule of the same name is another rule");
    let load = load_of(&fixture, "rule-created");
    fixture.set(rules).await;
    fixture.delivery.settle_attempt(load, vec![Ok(())]).await.unwrap();
    let told = async || {
        fixture.deliver_all().await;
        let arrived = fixture.script.take();
        let on = |one: &Arrived| one.host == "two.example:443";
        arrived.iter().filter(|one| on(one)).flat_map(Arrived::events).collect::<Vec<_>>()
    };
    assert_eq!(types(&told().await), ["b2:ObjectCreated:Upload", "b2:TestEvent"]);
    fixture.upload("h").await;
    let load = load_of(&fixture, "rule-created");
    let mut same = everything();
    same[0].target.url = "https://two.example/".to_owned();
    fixture.set(same).await;
    fixture.delivery.settle_attempt(load, vec![Ok(())]).await.unwrap();
    assert!(told().await.is_empty(), "the same target has it");
}

#[tokio::test]
async fn a_rule_that_was_just_resumed_is_not_suspended_by_an_attempt_of_before() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.script.set_dead(&["one.example:443"]);
    fixture.upload("f").await;
    for _ in 1..ATTEMPTS_MAX {
        fixture.wait_for("rule-created");
        assert_eq!(fixture.deliver_all().await, 1);
    }
    fixture.wait_for("rule-created");
    let load = load_of(&fixture, "rule-created");
    assert_eq!(load.queue.failures, ATTEMPTS_MAX - 1);
    fixture.set(everything()).await;
    fixture.delivery.settle_attempt(load, timed_out()).await.unwrap();
    assert!(fixture.rules()[0].suspension_reason.is_empty());
    assert_eq!(fixture.queue("rule-created").failures, 0);
}

#[tokio::test]
async fn time_in_which_the_server_is_down_is_not_held_against_a_target() {
    let mut fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.script.set_dead(&["one.example:443"]);
    fixture.upload("f").await;
    for _ in 0..12 {
        fixture.deliver_all().await;
        fixture.house.clock.advance(3 * PATIENCE_MS);
        fixture.crash().await;
    }
    assert!(fixture.rules()[0].suspension_reason.is_empty(), "twelve attempts are no day");
    assert_eq!(fixture.queue("rule-created").waiting, 1);
    fixture.script.set_dead(&[]);
    fixture.script.take();
    fixture.deliver_all().await;
    assert_eq!(fixture.script.take_events().len(), 1);
}

#[tokio::test]
async fn a_clock_that_was_set_back_while_the_server_was_down_holds_no_event_back() {
    let mut fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    fixture.upload("f").await;
    fixture.house.clock.jump(-30 * PATIENCE_MS);
    fixture.crash().await;
    assert_eq!(fixture.deliver_all().await, 1, "at once");
    fixture.script.fail_next(1);
    fixture.upload("g").await;
    fixture.deliver_all().await;
    fixture.house.clock.jump(-30 * PATIENCE_MS);
    fixture.crash().await;
    assert_eq!(fixture.deliver_all().await, 0);
    fixture.house.clock.advance(1000);
    assert_eq!(fixture.deliver_all().await, 1, "after the wait it had, not an hour");
}

/// Looks for work again and again until so many events wait, and a few times more.
async fn rounds_until(fixture: &Fixture, waiting: i64) {
    while fixture.waiting() != waiting {
        fixture.delivery.round().await.unwrap();
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        fixture.delivery.round().await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn targets_that_hang_delay_no_other_host_and_no_other_account() {
    let fixture = Fixture::open().await;
    let ruled = |at: usize, host: &str| {
        let mut rule =
            wanted(&format!("rule-{at:02}"), &["b2:ObjectCreated:*"], &format!("{at:02}/"));
        rule.target.url = format!("https://{host}/");
        rule
    };
    let mut rules: Vec<WantedRule> = (0..10).map(|at| ruled(at, "slow.example")).collect();
    rules.extend((10..20).map(|at| ruled(at, &format!("slow-{at}.example"))));
    rules.push(ruled(20, "quick.example"));
    fixture.set_quietly(rules).await;
    let other = fixture.house.another_account().await;
    let others_bucket = fixture.house.bucket_of(&other, "others").await;
    let rule = WantedRule { object_name_prefix: String::new(), ..ruled(30, "others.example") };
    let id = others_bucket.to_string();
    set_bucket_rules(&fixture.house.app, &other, &id, vec![rule]).await.unwrap();
    fixture.deliver_all().await;
    fixture.script.take();
    let hosts = |fixture: &Fixture| {
        let mut hosts: Vec<String> =
            fixture.script.take().into_iter().map(|one| one.host).collect();
        hosts.sort();
        hosts
    };
    // One host hangs: it has two of eight workers, and no round gives it more.
    fixture.script.hanging_hosts.lock().unwrap().push("slow.example:443".to_owned());
    for at in 0..10 {
        fixture.upload(&format!("{at:02}/f")).await;
        fixture.upload(&format!("{at:02}/g")).await;
    }
    fixture.upload("20/f").await;
    rounds_until(&fixture, 20).await;
    assert_eq!(hosts(&fixture), ["quick.example:443", "slow.example:443", "slow.example:443"]);
    // Further hosts of the account hang: together they have half of the workers.
    for at in 10..20 {
        let host = format!("slow-{at}.example:443");
        fixture.script.hanging_hosts.lock().unwrap().push(host);
        fixture.upload(&format!("{at:02}/f")).await;
    }
    fixture.house.upload(others_bucket, "f", b"x").await;
    rounds_until(&fixture, 30).await;
    let arrived = hosts(&fixture);
    assert_eq!(arrived.len(), 3, "{arrived:?}");
    assert_eq!(arrived[0], "others.example:443");
    assert!(arrived[1..].iter().all(|host| host.starts_with("slow-")), "{arrived:?}");
}

#[tokio::test]
async fn a_rule_has_several_requests_under_way_and_one_that_fails_takes_no_other_along() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(vec![wanted("rule-one", &["b2:ObjectCreated:*"], "")]).await;
    for name in ["a", "poison", "b", "c"] {
        fixture.upload(name).await;
    }
    fixture.script.hangs.store(true, Ordering::SeqCst);
    let delivery = Arc::clone(&fixture.delivery);
    let sending = tokio::spawn(async move { delivery.step().await });
    while fixture.script.arrived.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    sending.abort();
    assert!(sending.await.is_err());
    fixture.script.hangs.store(false, Ordering::SeqCst);
    *fixture.script.poison.lock().unwrap() = Some("poison".to_owned());
    let again = delivery_of(&fixture.house, &fixture.script);
    fixture.script.take();
    assert_eq!(again.step().await.unwrap(), 1);
    let queue = fixture.queue("rule-one");
    assert_eq!((queue.waiting, queue.delivered, queue.failures), (3, 2, 0));
    assert_eq!(queue.last_error.as_deref(), Some("the endpoint answered with status 500"));
    assert_eq!(again.step().await.unwrap(), 1, "the rule does not wait for the one event");
    let names: Vec<Value> =
        fixture.script.take_events().iter().map(|event| event["objectName"].clone()).collect();
    assert_eq!(names, ["a", "poison", "b", "c"]);
    assert_eq!(fixture.queue("rule-one").waiting, 1);
}

#[tokio::test]
async fn a_target_is_never_this_server_itself() {
    let house = TestHouse::open_configured(|config| {
        config.public_url = Some("https://b2.example.com".to_owned());
    });
    let fixture = Fixture::of(house.await).await;
    let with = |url: &str| {
        let mut rule = wanted("rule-one", &["b2:ObjectCreated:*"], "");
        rule.target.url = url.to_owned();
        vec![rule]
    };
    for own in ["https://b2.example.com/b2api/v4/x", "https://B2.EXAMPLE.com.:443/"] {
        let refused = fixture.try_set(with(own)).await.map(|_| ());
        let is_refused =
            matches!(&refused, Err(Error::Refused(refusal)) if refusal.code == Code::BadRequest);
        assert!(is_refused, "{own}: {refused:?}");
    }
    fixture.set(with("https://b2.example.com:8443/")).await;
    fixture.set(with("https://hooks.example.com/")).await;
}

#[tokio::test]
async fn reliability_i8_the_catalog_holds_nothing_of_a_target_in_plain() {
    let fixture = Fixture::open().await;
    let mut rule = wanted("rule-one", &["b2:ObjectCreated:*"], "");
    rule.target.signing_secret = Some(Secret::new(SECRET.to_owned()));
    rule.target.custom_headers =
        Some(vec![("Authorization".to_owned(), "header-secret".to_owned())]);
    fixture.set(vec![rule]).await;
    fixture.house.app.catalog.close();
    for entry in std::fs::read_dir(fixture.house.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for secret in [SECRET, "path-secret", "header-secret", "one.example"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {}", path.display());
        }
    }
}

#[tokio::test]
async fn native_372_rules_go_with_their_bucket_and_with_an_empty_list() {
    let fixture = Fixture::open().await;
    fixture.set(everything()).await;
    assert_eq!(fixture.rules().len(), 3);
    assert!(fixture.set(vec![]).await.is_empty() && fixture.rules().is_empty());
    fixture.set(everything()).await;
    let id = fixture.bucket.to_string();
    let deleted =
        crate::operations::buckets::delete_bucket(&fixture.house.app, fixture.caller(), &id);
    deleted.await.unwrap();
    assert_eq!(fixture.deliver_all().await, 0);
    let refused = bucket_rules(&fixture.house.app, fixture.caller(), &id).map(|_| ());
    assert!(matches!(refused, Err(Error::Refused(refusal)) if refusal.code == Code::BadBucketId));
}

#[tokio::test]
async fn other_changes_of_a_bucket_leave_its_rules_alone() {
    let fixture = Fixture::open().await;
    fixture.set(everything()).await;
    let before = fixture.house.bucket_now(fixture.bucket).unwrap();
    let change = crate::operations::buckets::BucketChange {
        info: Some([("a".to_owned(), "b".to_owned())].into()),
        ..Default::default()
    };
    let id = fixture.bucket.to_string();
    let updated = crate::operations::buckets::update_bucket(
        &fixture.house.app,
        fixture.caller(),
        &id,
        change,
    );
    let updated = updated.await.unwrap();
    assert_eq!(updated.settings.notifications, before.settings.notifications);
    assert_eq!(fixture.rules().len(), 3);
    fixture.set(vec![]).await;
    let after = fixture.house.bucket_now(fixture.bucket).unwrap();
    assert_eq!(
        after.revision, updated.revision,
        "rules are no part of the bucket that clients see"
    );
}

#[tokio::test]
async fn an_upload_that_is_refused_tells_nobody() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(everything()).await;
    let refused = delete_version(&fixture.house.app, fixture.caller(), "absent", "4_z", false);
    assert!(refused.await.is_err());
    fixture.upload("f").await;
    fixture.hide("f").await.unwrap();
    assert!(fixture.hide("f").await.is_err(), "already hidden");
    assert_eq!(fixture.waiting(), 2);
}

/// Runs a statement that no part of the server runs.
async fn run_sql(fixture: &Fixture, statement: &'static str) {
    let ran = fixture.house.app.catalog.write("break", move |tx| {
        tx.execute(statement, &[])?;
        Ok(())
    });
    ran.await.unwrap();
}

#[tokio::test]
async fn what_was_sent_and_cannot_be_noted_is_not_sent_again() {
    let fixture = Fixture::open().await;
    fixture.set_quietly(vec![wanted("rule-created", &["b2:ObjectCreated:*"], "")]).await;
    fixture.upload("f").await;
    let broken = "CREATE TRIGGER no_end BEFORE DELETE ON notification_events
                  BEGIN SELECT RAISE(ABORT, 'not now'); END";
    run_sql(&fixture, broken).await;
    assert!(fixture.delivery.step().await.is_err());
    assert_eq!(fixture.script.take().len(), 1);
    for wait_ms in [1000, 2000, 4000] {
        assert_eq!(fixture.delivery.step().await.unwrap(), 0, "it is held back");
        fixture.house.clock.advance(wait_ms - 1);
        assert_eq!(fixture.delivery.step().await.unwrap(), 0, "it is held back");
        fixture.house.clock.advance(1);
        assert!(fixture.delivery.step().await.is_err());
        assert_eq!(fixture.script.take().len(), 0, "the target has it");
    }
    run_sql(&fixture, "DROP TRIGGER no_end").await;
    fixture.house.clock.advance(HOUR_MS);
    fixture.deliver_all().await;
    assert_eq!(fixture.script.take().len(), 0, "the target has it");
    assert_eq!(fixture.queue("rule-created").waiting, 0);
    fixture.upload("g").await;
    fixture.deliver_all().await;
    assert_eq!(fixture.script.take().len(), 1);
}
