use nsmc_experiment::sha256_hex;

use super::*;
use crate::test_server::{Answer, Request, Server, answer, file};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// `printf '{}' | git hash-object --stdin`
const CONFIG_SHA1: &str = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
const WEIGHTS: &[u8] = b"weights";

const PATIENCE: Patience = crate::transfer::tests::HASTE;

fn entry(revision: &str) -> ModelEntry {
    ModelEntry {
        repos: vec!["org/bert".into()],
        revision: revision.into(),
        licence: "Apache-2.0".into(),
        files: vec!["config.json".into(), "model.safetensors".into()],
        bytes: 9,
    }
}

/// A hub whose large files lie in another place.
fn hub(weights: &'static [u8], linked: &str) -> Server {
    let storage = Server::start(move |_, request| file(request, weights, "\"of-the-storage\""));
    let (elsewhere, linked) =
        (format!("http://localhost:{}/blob", storage.port), linked.to_owned());
    Server::start(move |_, request| serve(request, &elsewhere, &linked))
}

fn serve(request: &Request, elsewhere: &str, linked: &str) -> Answer {
    let mut headers = vec![("X-Repo-Commit", COMMIT)];
    let quoted = format!("\"{CONFIG_SHA1}\"");
    if request.line.contains("config.json") {
        headers.push(("ETag", &quoted));
        let body: &[u8] = if request.line.starts_with("HEAD") { b"" } else { b"{}" };
        headers.push(("Content-Length", "2"));
        return answer("200 OK", &headers, body);
    }
    let linked = format!("\"{linked}\"");
    headers.extend([("X-Linked-Etag", linked.as_str()), ("X-Linked-Size", "7")]);
    headers.push(("Location", elsewhere));
    answer("302 Found", &headers, b"")
}

fn client(server: &Server, cache: &Path) -> Hub {
    Hub {
        client: Client::new(PATIENCE),
        endpoint: server.url(""),
        token: Some("secret".into()),
        cache: cache.into(),
    }
}

#[test]
fn a_branch_is_pinned_to_its_commit_and_the_hashes_of_its_files() {
    let cache = tempfile::tempdir().unwrap();
    let server = hub(WEIGHTS, &sha256_hex(WEIGHTS));
    let (folder, locked) = client(&server, cache.path()).fetch(&entry("main"), None).unwrap();
    let repo = cache.path().join("models--org--bert");
    assert_eq!(folder, repo.join("snapshots").join(COMMIT));
    assert_eq!(fs_err::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    assert_eq!(fs_err::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert!(repo.join("blobs").join(CONFIG_SHA1).is_file());
    let hashes = [sha256_hex(b"{}"), sha256_hex(WEIGHTS)];
    assert_eq!(locked.commit, COMMIT);
    assert_eq!(locked.sha256.values().cloned().collect::<Vec<_>>(), hashes);
    // The branch is asked for once; every other file is of the commit that it was.
    let lines: Vec<String> = server.requests().into_iter().map(|request| request.line).collect();
    let branch = lines.iter().filter(|line| line.contains("/resolve/main/")).count();
    assert_eq!((branch, lines.len()), (2, 4), "{lines:?}");

    // Later the same must come, wherever from.
    let again = tempfile::tempdir().unwrap();
    client(&server, again.path()).fetch(&entry("main"), Some(&locked)).unwrap();
    let forged = hub(b"forgery", &sha256_hex(b"forgery"));
    let error = client(&forged, tempfile::tempdir().unwrap().path())
        .fetch(&entry("main"), Some(&locked))
        .unwrap_err();
    assert!(format!("{error:#}").contains("models/lock.toml"), "{error:#}");
    let requests = forged.requests();
    assert!(requests.iter().all(|request| request.line.contains(COMMIT)), "{requests:?}");
}

#[test]
fn a_file_that_is_not_what_the_hub_says_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let server = hub(b"forgery", &sha256_hex(WEIGHTS));
    let error = client(&server, cache.path()).fetch(&entry("main"), None).unwrap_err();
    assert!(format!("{error:#}").contains("expected sha256"), "{error:#}");
    assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    let snapshot = cache.path().join("models--org--bert/snapshots").join(COMMIT);
    assert!(!snapshot.join("model.safetensors").exists());
    // The other file is right, and stays.
    assert!(snapshot.join("config.json").is_file());
    let error = client(&hub(WEIGHTS, "../../evil"), cache.path()).fetch(&entry("main"), None);
    assert!(format!("{:#}", error.unwrap_err()).contains("no hash"));
}

#[test]
fn processes_that_fetch_a_model_at_once_do_each_other_no_harm() {
    let cache = tempfile::tempdir().unwrap();
    let server = hub(WEIGHTS, &sha256_hex(WEIGHTS));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (folder, _) =
                    client(&server, cache.path()).fetch(&entry("main"), None).unwrap();
                assert_eq!(fs_err::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
                assert_eq!(fs_err::read(folder.join("config.json")).unwrap(), b"{}");
            });
        }
    });
    let blobs = fs_err::read_dir(cache.path().join("models--org--bert/blobs")).unwrap();
    assert_eq!(blobs.count(), 2);
}
