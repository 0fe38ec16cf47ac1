//! Object stores at every end, with a real S3 server: checkpoints, logs, savepoints, what is read and what is written.
//! Processes are killed at random instants and at the edges of durability, and so is the server.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::support::cluster::LocalCluster;
use crate::support::s3::{S3, SECRET, is_hidden};
use crate::support::{Sandbox, assert_says, text};
use crate::{kill, savepoints};

/// Kills of each test, unless more are asked for.
fn kills_wanted() -> usize {
    crate::support::kills(12)
}

fn told(s3: &S3, mut sandbox: Sandbox) -> Sandbox {
    sandbox.environment = s3.environment();
    sandbox
}

/// The attempts that a job's log in the store knows of.
fn attempts(log: &[u8]) -> u64 {
    let json = log.iter().position(|byte| *byte == b'{').expect("a log is JSON behind its head");
    let log: serde_json::Value = serde_json::from_slice(&log[json..]).unwrap();
    log["record"]["generation"].as_u64().unwrap()
}

#[test]
fn checkpoints_in_an_object_store_survive_kills() {
    let s3 = S3::shared();
    let mut random = SmallRng::seed_from_u64(0x7333);
    let (mut kills, mut jobs) = (0, 0);
    while kills < kills_wanted() {
        let sandbox = told(&s3, kill::sandbox());
        jobs += 1;
        let place = format!("checkpoints-{jobs}");
        let state_dir = s3.url(&place);
        let run = ["run", "job.sql", "--checkpoint-interval", "100 ms", "--state-dir", &state_dir];
        let (unfinished, log) = (format!("{place}/jobs/job/state/1-g1-op0-0.state"), format!("{place}/jobs/job/log"));
        let upload = s3.begin_upload(&unfinished);
        assert!(s3.has_upload(&unfinished, &upload));
        let mut finished = false;
        while !finished && kills < kills_wanted() {
            let parallelism = random.random_range(1..=3).to_string();
            let after = Duration::from_millis(random.random_range(50..1_500));
            finished = !sandbox.run_and_kill(&[&run[..], &["--parallelism", &parallelism]].concat(), after);
            kills += usize::from(!finished);
        }
        sandbox.run_ok(&run);
        kill::check(&sandbox.lines("out/copies"), &sandbox.lines("out/counts"));
        assert!(!sandbox.path(".mainstem").exists(), "nothing is kept beside the object store");
        let keys = s3.keys(&place);
        assert!(keys.contains(&log), "{keys:?}");
        // There may be one alone: a process that is killed very soon has recorded none, and one very late the whole job.
        let attempts = attempts(&s3.get(&log));
        assert!(
            attempts == 1 || !s3.has_upload(&unfinished, &upload),
            "{attempts} attempts left an upload of the first"
        );
        // What crashed attempts have left is gone; the last run has retained no more than it says.
        assert!(keys.len() < 60, "{keys:?}");
        for key in keys {
            let content = s3.get(&key);
            assert!(!content.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{key}");
        }
    }
    println!("{kills} kills at random instants over {jobs} jobs");
}

/// The job of `kill`, with both ends in the object store.
fn objects_job(s3: &S3, place: &str) -> Sandbox {
    let sandbox = kill::sandbox();
    let sql = std::fs::read_to_string(sandbox.path("job.sql")).unwrap();
    let path = |name: &str| format!("'path' = '{}'", s3.url(&format!("{place}/{name}")));
    let sql = sql.replace("'path' = 'in'", &path("in"));
    let sql = sql.replace("'path' = 'out/copies'", &path("out/copies"));
    let sql = sql.replace("'path' = 'out/counts'", &path("out/counts"));
    sandbox.write("job.sql", sql);
    for entry in std::fs::read_dir(sandbox.path("in")).unwrap().map(|entry| entry.unwrap().path()) {
        let (name, content) = (entry.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&entry).unwrap());
        if name.contains("-1.") {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packed, &content).unwrap();
            s3.put(&format!("{place}/in/{name}.gz"), packed.finish().unwrap());
        } else {
            s3.put(&format!("{place}/in/{name}"), content);
        }
    }
    std::fs::remove_dir_all(sandbox.path("in")).unwrap();
    told(s3, sandbox)
}

#[test]
fn objects_are_read_and_written_once_under_kills() {
    let s3 = S3::shared();
    let mut random = SmallRng::seed_from_u64(0x7334);
    let (mut kills, mut jobs) = (0, 0);
    let mut within = 0;
    let mut edges =
        ["epoch-complete", "publishing", "published", "snapshots-durable", "manifest-durable"].iter().cycle();
    while kills < kills_wanted() {
        jobs += 1;
        let place = format!("objects-{jobs}");
        let sandbox = objects_job(&s3, &place);
        let state_dir = s3.url(&format!("{place}/state"));
        let run = ["run", "job.sql", "--checkpoint-interval", "100 ms", "--state-dir", &state_dir];
        let mut finished = false;
        while !finished && kills < kills_wanted() {
            let parallelism = random.random_range(1..=3).to_string();
            let run = [&run[..], &["--parallelism", &parallelism]].concat();
            finished = if kills % 2 == 0 {
                !sandbox.run_and_kill(&run, Duration::from_millis(random.random_range(100..2_000)))
            } else {
                let edge = edges.next().unwrap();
                let killed = sandbox.kill_at(&run, edge, random.random_range(1..=2));
                // From "complete" to "known to be published".
                within += usize::from(killed && ["epoch-complete", "publishing", "published"].contains(edge));
                !killed
            };
            kills += usize::from(!finished);
        }
        sandbox.run_ok(&run);
        let out = |name: &str| s3.lines(&format!("{place}/out/{name}"));
        kill::check(&out("copies"), &out("counts"));
        let hidden: Vec<_> = s3.keys(&format!("{place}/out")).into_iter().filter(|key| is_hidden(key)).collect();
        assert_eq!(hidden, Vec::<String>::new(), "nothing is left of what crashed attempts wrote");
    }
    assert!(within >= kills / 5, "{within} of {kills} kills came while an epoch was published");
    println!("{kills} kills over {jobs} jobs, {within} of them while an epoch was published");
}

#[test]
fn parquet_and_partitions_go_through_an_object_store() {
    let s3 = S3::shared();
    let path = |name: &str| s3.url(&format!("parquet/{name}"));
    let columns = "(id BIGINT, day STRING, price DECIMAL(10, 2))";
    let sandbox = Sandbox::new(&format!(
        "CREATE TABLE made {columns} WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'json');
         CREATE TABLE kept {columns} PARTITIONED BY (day)
         WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         INSERT INTO kept SELECT * FROM made;",
        path("kept")
    ));
    let line = |id: u32| format!(r#"{{"id":{id},"price":{}.50}}"#, id % 100);
    let rows = (0..50_000_u32).map(|id| line(id).replacen(',', &format!(r#","day":"d/{}","#, id % 3), 1));
    sandbox.write("in/rows.json", rows.collect::<Vec<_>>().join("\n"));
    let sandbox = told(&s3, sandbox);
    sandbox.run_ok(&["run", "job.sql", "-p", "2"]);
    let keys = s3.keys("parquet/kept");
    assert!(keys.iter().all(|key| key.contains("/day=d%2F") && key.ends_with(".parquet")), "{keys:?}");
    sandbox.write(
        "back.sql",
        format!(
            "CREATE TABLE kept (id BIGINT, price DECIMAL(10, 2))
             WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
             CREATE TABLE back (id BIGINT, price DECIMAL(10, 2))
             WITH ('connector' = 'filesystem', 'path' = 'back', 'format' = 'json');
             INSERT INTO back SELECT * FROM kept;",
            path("kept/day=*/part-*.parquet")
        ),
    );
    sandbox.run_ok(&["run", "back.sql", "-p", "2"]);
    assert_eq!(sandbox.lines("back"), (0..50_000).map(|id| (line(id), 1)).collect());
}

#[test]
fn a_cluster_keeps_checkpoints_and_savepoints_in_an_object_store() {
    let s3 = S3::shared();
    let expected = savepoints::undisturbed();
    let first = told(&s3, Sandbox::new(&savepoints::sql(true)));
    first.write("cluster.toml", format!("[cluster]\nstate-dir = \"{}\"\n", s3.url("cluster")));
    let config = first.path("cluster.toml").display().to_string();
    let cluster = LocalCluster::start_with(&first, 1, 3, 2, &[("MAINSTEM_CONFIG", &config)]);
    first.run_ok(&["submit", "job.sql", "-p", "4"]);
    cluster.wait_until("the first epoch is published", |jobs| jobs.number("job", "committed") > 0);
    let used = cluster.wait_until("it runs", |jobs| !jobs.used_workers().is_empty()).used_workers();
    let victim = cluster.nodes("worker").into_iter().find(|name| used.iter().any(|id| id.contains(name.as_str())));
    let before = cluster.jobs().unwrap().number("job", "generation");
    cluster.signal(&victim.unwrap_or_else(|| "worker-1".to_owned()), "KILL");
    cluster.wait_until("another attempt", |jobs| jobs.number("job", "generation") > before);
    let at = cluster.jobs().unwrap().number("job", "committed");
    cluster.wait_until("it goes on", |jobs| jobs.number("job", "committed") > at);
    let printed = cluster.command_ok(&["stop", "job", "--savepoint", &s3.url("cluster-savepoints")]);
    let savepoint = printed.trim();
    assert!(savepoint.starts_with(&s3.url("cluster-savepoints/savepoint-job-")), "{savepoint}");
    assert!(!cluster.logs().contains(SECRET));
    drop(cluster);
    assert!(!first.path(".mainstem-cluster/state").exists(), "checkpoints lie in the object store alone");

    let second = told(&s3, Sandbox::new(&savepoints::sql(true)));
    let state_dir = s3.url("cluster-second");
    // By the directory of savepoints: there is one.
    let from = s3.url("cluster-savepoints");
    second.run_ok(&["run", "job.sql", "--from-savepoint", &from, "--state-dir", &state_dir]);
    savepoints::assert_same(&savepoints::together(&[first.lines("out"), second.lines("out")]), &expected);
    let nothing = second.run_err(&["run", "job.sql", "--job-id", "x", "--from-savepoint", &s3.url("nowhere")]);
    assert_says(&nothing, &["there is no savepoint in 's3://tests/nowhere'"]);
}

/// A job that goes on by itself; what it says goes to a file.
fn spawn(sandbox: &Sandbox, log: &str, arguments: &[&str]) -> Child {
    let file = std::fs::File::create(sandbox.path(log)).unwrap();
    sandbox.command(arguments).stdout(Stdio::null()).stderr(file).spawn().unwrap()
}

fn log(sandbox: &Sandbox, name: &str) -> String {
    std::fs::read_to_string(sandbox.path(name)).unwrap()
}

#[track_caller]
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(90), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_job_outlives_the_death_of_its_object_store() {
    let s3 = S3::start();
    let expected = savepoints::undisturbed();
    let sql = savepoints::sql(true).replace("'path' = 'out'", &format!("'path' = '{}'", s3.url("out")));
    let sandbox = told(&s3, Sandbox::new(&sql));
    let mut job = spawn(&sandbox, "log", &["run", "job.sql", "--state-dir", &s3.url("state")]);
    for _ in 0..2 {
        let before = s3.keys("out").iter().filter(|key| !is_hidden(key)).count();
        wait_for("output", || s3.keys("out").iter().filter(|key| !is_hidden(key)).count() > before);
        s3.stop();
        std::thread::sleep(Duration::from_secs(1));
        s3.go();
    }
    wait_for("the end", || job.try_wait().unwrap().is_some());
    assert!(job.wait().unwrap().success(), "{}", log(&sandbox, "log"));
    savepoints::assert_same(&s3.lines("out"), &expected);
}

#[test]
fn the_newest_run_of_a_job_in_an_object_store_is_the_only_one() {
    let s3 = S3::shared();
    let expected = savepoints::undisturbed();
    let sql = savepoints::sql(true).replace("'path' = 'out'", &format!("'path' = '{}'", s3.url("twice/out")));
    let sandbox = told(&s3, Sandbox::new(&sql));
    let state_dir = s3.url("twice/state");
    let run = ["run", "job.sql", "--state-dir", &state_dir];
    let mut first = spawn(&sandbox, "first.log", &run);
    wait_for("output", || !s3.lines("twice/out").is_empty());
    let second = sandbox.run_ok(&run);
    wait_for("the end of the first", || first.try_wait().unwrap().is_some());
    assert!(!first.wait().unwrap().success());
    assert_says(&log(&sandbox, "first.log"), &["another process (pid ", "has taken over its log 's3://tests/twice/"]);
    savepoints::assert_same(&s3.lines("twice/out"), &expected);
    assert!(!text(&second.stderr).contains(SECRET));
}

#[test]
fn what_is_wrong_with_an_object_store_is_said_once_with_what_to_do() {
    let s3 = S3::shared();
    let sandbox = told(&s3, kill::sandbox());
    let run = |place: &str| sandbox.run_err(&["run", "job.sql", "--state-dir", place]);
    let missing = run("s3://no-such-bucket/state");
    assert_says(&missing, &["no-such-bucket/state/jobs/job/log", "there is no bucket 'no-such-bucket'; create it"]);
    assert_says(&run("s3://tests/x?secret=hunter2"), &["the parameter 'secret' is not known", "AWS_ACCESS_KEY_ID"]);
    assert!(!run("s3://tests/x?secret=hunter2").contains("hunter2"));
    assert_says(&run("ftp://tests/x"), &["the scheme 'ftp'", "s3://"]);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = run(&format!("s3://tests/x?endpoint=http://{nobody}"));
    assert_says(&unreachable, &["cannot be reached", "AWS_ENDPOINT_URL"]);
    let nothing = sandbox.path("job.sql");
    let sql = std::fs::read_to_string(&nothing).unwrap().replace("'path' = 'in'", "'path' = 's3://tests/nothing-here'");
    sandbox.write("job.sql", sql);
    assert_says(&sandbox.run_err(&["run", "job.sql"]), &["the path 's3://tests/nothing-here' has no object to read"]);
    assert!(!missing.contains(SECRET) && !unreachable.contains(SECRET));
}
