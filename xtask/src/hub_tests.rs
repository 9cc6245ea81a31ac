use nsmc_experiment::sha256_hex;

use super::*;
use crate::test_server::{Answer, Request, Server, answer, file};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// `printf '{}' | git hash-object --stdin`
const CONFIG_SHA1: &str = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
/// `printf '{}' | gzip -n`
const PACKED_CONFIG: &[u8] =
    b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0\x43\xbf\xa6\xa3\x02\0\0\0";
const WEIGHTS: &[u8] = b"weights";

const PATIENCE: Patience = crate::transfer::tests::HASTE;

#[test]
fn the_cache_is_where_the_hubs_library_has_it() {
    let home = std::env::home_dir().unwrap();
    for (set, expected) in [
        (
            &[("HF_HUB_CACHE", "/a"), ("HUGGINGFACE_HUB_CACHE", "/b"), ("HF_HOME", "/c")][..],
            "/a".into(),
        ),
        (&[("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", "/b"), ("HF_HOME", "/c")], "/b".into()),
        (&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/d")], home.join("hf/hub")),
        (&[("XDG_CACHE_HOME", "/d")], "/d/huggingface/hub".into()),
        (&[], home.join(".cache/huggingface/hub")),
    ] {
        let of = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        assert_eq!(cache_by(of).unwrap(), expected, "{set:?}");
    }
}

fn entry(revision: &str) -> ModelEntry {
    ModelEntry {
        repos: vec!["org/bert".into()],
        revision: revision.into(),
        licence: "Apache-2.0".into(),
        files: vec!["config.json".into(), "model.safetensors".into()],
        bytes: 9,
    }
}

/// How a hub answers for a file that is not in large-file storage.
#[derive(Clone, Copy)]
enum Small {
    /// With the file itself, as mirrors of the hub do.
    Itself,
    /// With a redirect within the hub to its cache.
    Cached,
}

/// A hub whose large files lie in another place.
fn hub(weights: &'static [u8], linked: &str) -> Server {
    let storage = Server::start(move |_, request| file(request, weights, "\"of-the-storage\""));
    hub_with(Small::Cached, format!("http://localhost:{}/blob", storage.port), linked)
}

fn hub_with(small: Small, elsewhere: String, linked: &str) -> Server {
    let linked = linked.to_owned();
    Server::start(move |_, request| serve(request, small, &elsewhere, &linked))
}

fn serve(request: &Request, small: Small, elsewhere: &str, linked: &str) -> Answer {
    let mut headers = vec![("X-Repo-Commit", COMMIT)];
    let quoted = format!("\"{CONFIG_SHA1}\"");
    let cached = format!(
        "/api/resolve-cache/models/org/bert/{COMMIT}/config.json\
         ?%2Forg%2Fbert%2Fresolve%2Fmain%2Fconfig.json=&etag=%22{CONFIG_SHA1}%22"
    );
    let path = request.line.split(' ').nth(1).unwrap();
    if path.contains("config.json") {
        headers.push(("ETag", &quoted));
        if path != cached && matches!(small, Small::Cached) {
            headers.push(("Location", &cached));
            let text = format!("Temporary Redirect. Redirecting to {cached}");
            return answer_with("307 Temporary Redirect", request, headers, text.as_bytes());
        }
        // Like the hub's, this cache packs text for everyone who does not refuse that.
        if request.header("accept-encoding") == Some("identity") {
            return answer_with("200 OK", request, headers, b"{}");
        }
        headers.push(("Content-Encoding", "gzip"));
        return answer_with("200 OK", request, headers, PACKED_CONFIG);
    }
    let linked = format!("\"{linked}\"");
    headers.extend([("X-Linked-Etag", linked.as_str()), ("X-Linked-Size", "7")]);
    headers.push(("Location", elsewhere));
    answer_with("302 Found", request, headers, b"Found. Redirecting to elsewhere")
}

/// An answer whose length is told, but which has its body only for who asks for it.
fn answer_with(status: &str, request: &Request, headers: Vec<(&str, &str)>, body: &[u8]) -> Answer {
    let length = body.len().to_string();
    let headers = [headers, vec![("Content-Length", length.as_str())]].concat();
    answer(status, &headers, if request.line.starts_with("HEAD") { b"" } else { body })
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
    let cached = lines.iter().filter(|line| line.contains("/api/resolve-cache/")).count();
    assert_eq!((branch, cached, lines.len()), (2, 2, 6), "{lines:?}");

    // As another tool would have left it; and nothing of it need be here for it to be known.
    assert_eq!(as_it_lies(&entry("main"), &folder).unwrap(), locked);
    let mut lock = ModelLock::default();
    assert_eq!(commit(&lock, "no model of any cache", &entry("main")), None);
    lock.models.insert("no model of any cache".into(), locked.clone());
    assert_eq!(commit(&lock, "no model of any cache", &entry("main")).unwrap(), COMMIT);

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
fn a_hub_that_sends_small_files_itself_is_understood_too() {
    let cache = tempfile::tempdir().unwrap();
    let storage = Server::start(|_, request| file(request, WEIGHTS, "\"of-the-storage\""));
    let elsewhere = format!("http://localhost:{}/blob", storage.port);
    let server = hub_with(Small::Itself, elsewhere, &sha256_hex(WEIGHTS));
    let (folder, locked) = client(&server, cache.path()).fetch(&entry("main"), None).unwrap();
    assert_eq!(fs_err::read(folder.join("config.json")).unwrap(), b"{}");
    assert_eq!(fs_err::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    assert_eq!(locked.sha256["config.json"], sha256_hex(b"{}"));
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_size_is_that_of_the_file_and_of_nothing_else() {
    let size = |status: &'static str, headers: &[(&'static str, &'static str)]| {
        let named = [("X-Repo-Commit", COMMIT), ("ETag", CONFIG_SHA1)];
        let headers = [&named, headers].concat();
        let server = Server::start(move |_, _| answer(status, &headers, b""));
        let head = Client::new(PATIENCE).head(&server.url("/file"), None).unwrap();
        About::read(&head).unwrap().bytes
    };
    let length = ("Content-Length", "262");
    assert_eq!(size("200 OK", &[length]), Some(262));
    assert_eq!(size("200 OK", &[length, ("Content-Encoding", "identity")]), Some(262));
    // A mirror that sends on to the hub may leave out what the hub says of the file.
    let elsewhere = ("Location", "https://huggingface.invalid/file");
    assert_eq!(size("302 Found", &[length, elsewhere]), None);
    assert_eq!(size("302 Found", &[length, elsewhere, ("X-Linked-Size", "7")]), Some(7));
    // Also from one that packs the file although it is asked not to.
    assert_eq!(size("200 OK", &[length, ("Content-Encoding", "gzip")]), None);
    let packed = [length, ("Content-Encoding", "gzip"), ("X-Linked-Size", "7")];
    assert_eq!(size("200 OK", &packed), Some(7));
}

#[test]
fn the_token_stays_with_the_hub() {
    let storage = Server::start(|_, request| file(request, WEIGHTS, "\"of-the-storage\""));
    // The second has no scheme, and still names another host.
    for scheme in ["http:", ""] {
        let cache = tempfile::tempdir().unwrap();
        let elsewhere = format!("{scheme}//localhost:{}/blob", storage.port);
        let server = hub_with(Small::Cached, elsewhere, &sha256_hex(WEIGHTS));
        client(&server, cache.path()).fetch(&entry("main"), None).unwrap();
        let requests = server.requests();
        let token = |request: &Request| request.header("authorization").map(str::to_owned);
        assert!(
            requests.iter().all(|request| token(request).as_deref() == Some("Bearer secret")),
            "{requests:?}"
        );
        // Nobody asks the storage what the file is, either.
        let requests = storage.requests();
        assert!(
            requests.iter().all(|asked| token(asked).is_none() && asked.line.starts_with("GET ")),
            "{requests:?}"
        );
    }
    assert_eq!(storage.requests().len(), 2);
}

#[test]
fn where_links_are_impossible_a_copy_gets_its_name_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs_err::write(at("blob"), WEIGHTS).unwrap();
    // What one that was killed left.
    fs_err::write(at("model.safetensors.partial"), "more than the weights").unwrap();
    copy_to(&at("blob"), &at("model.safetensors"), &at("lock")).unwrap();
    assert_eq!(fs_err::read(at("model.safetensors")).unwrap(), WEIGHTS);
    assert!(!at("model.safetensors.partial").exists());
    // One that fails midway leaves no file of that name: here the partial one cannot be written.
    fs_err::create_dir(at("other.partial")).unwrap();
    copy_to(&at("blob"), &at("other"), &at("lock")).unwrap_err();
    assert!(!at("other").exists());
    // What another process brought meanwhile may be in use, and stays.
    fs_err::write(at("blob"), "later").unwrap();
    copy_to(&at("blob"), &at("model.safetensors"), &at("lock")).unwrap();
    assert_eq!(fs_err::read(at("model.safetensors")).unwrap(), WEIGHTS);
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
