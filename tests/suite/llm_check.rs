//! What `forebay check` says of wrong sections about language models: each finding has its line, names the setting and says
//! what would be right. And that what we show people is right.

use std::path::Path;

use crate::gateway::forebay_says;

/// A right configuration; `KEY` is a file with a key.
const RIGHT: &str = r#"[gateway]
name = "box"
[catalog]
folder = "MODELS"
[access]
allow_anonymous_loopback = true
[[mqtt.listener]]
address = "127.0.0.1:0"
[[provider]]
name = "plant-gpu"
kind = "vllm"
base_url = "https://gpu.plant.example:8000"
models = ["qwen2.5-72b"]
[[provider]]
name = "openai"
kind = "openai"
key_file = "KEY"
[[route]]
name = "chat"
models = ["gpt-4o", "chat"]
candidate = [{ provider = "openai", model = "gpt-4o" }]
"#;

/// What `forebay check` says of the right configuration with `more` behind it, and whether it lets the gateway start.
fn check(more: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("openai.key");
    std::fs::write(&key, "sk-of-the-test-0123456789\n").unwrap();
    std::fs::write(folder.path().join("page.html"), "<html>sign in</html>").unwrap();
    std::fs::write(folder.path().join("empty.json"), "{}").unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let text = format!("{RIGHT}{more}")
        .replace("\"KEY\"", &format!("{key:?}"))
        .replace("MODELS", models.to_str().unwrap())
        .replace("FOLDER", folder.path().to_str().unwrap());
    let file = folder.path().join("box.toml");
    std::fs::write(&file, text).unwrap();
    let (code, said, error) = forebay_says(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(error, "", "{more}");
    (code == Some(0), said.replace(&format!("{}/", folder.path().display()), ""))
}

/// Line in `more`, counted from 1, of a finding that says all of `says`.
fn finds(more: &str, starts: bool, line: usize, says: &[&str]) {
    let (started, said) = check(more);
    assert_eq!(started, starts, "{more}\n{said}");
    let line = RIGHT.lines().count() + line;
    let kind = if starts { "problem" } else { "error" };
    let finding = said
        .split("\n")
        .skip_while(|said| !said.starts_with(&format!("{kind}: box.toml:{line}:")))
        .take_while(|said| !said.starts_with("note: "))
        .collect::<Vec<_>>()
        .join("\n");
    assert!(!finding.is_empty(), "nothing at line {line} for\n{more}\nbut\n{said}");
    for part in says {
        assert!(finding.contains(part), "{part:?} is not said of\n{more}\nbut\n{said}");
    }
}

#[test]
fn the_right_one_is_fine() {
    let (starts, said) = check("");
    assert!(starts && said.contains("box.toml: fine"), "{said}");
}

#[test]
fn providers_that_cannot_be_asked_are_found() {
    let head = "[[provider]]\nname = \"a\"\n";
    for (more, line, says) in [
        ("kind = \"openia\"\nkey_file = \"KEY\"", 3, ["unknown variant `openia`", "did you mean `openai`?"]),
        ("kind = \"openai\"", 1, ["key_file is missing", "write the key into a file and name it"]),
        (
            "kind = \"oip\"\nbase_url = \"https://t:8000\"\nmodels = [{ name = \"m\", oip = { tokenizer_config = \"FOLDER/none.json\" } }]",
            5,
            ["model m: oip.tokenizer_config: failed to open none.json: No such file", "beside the model's weights"],
        ),
        (
            "kind = \"oip\"\nbase_url = \"https://t:8000\"\nmodels = [{ name = \"m\", oip = { tokenizer_config = \"FOLDER/page.html\" } }]",
            5,
            [
                "page.html: failed to read the model's file: expected a tokenizer_config.json",
                "beside the model's weights",
            ],
        ),
        (
            "kind = \"oip\"\nbase_url = \"https://t:8000\"\nmodels = [{ name = \"m\", oip = { tokenizer_config = \"FOLDER/empty.json\" } }]",
            5,
            ["empty.json: failed to read the model's file: names no control tokens", "beside the model's weights"],
        ),
        (
            "kind = \"openai\"\nkey_file = \"/nowhere/a.key\"",
            4,
            ["failed to open /nowhere/a.key", "write the key into it"],
        ),
        ("kind = \"openai\"\nkey_file = \"FOLDER/page.html\"", 4, ["page.html", "must hold one key"]),
        ("kind = \"openai\"\nkey_files = \"KEY\"", 4, ["unknown field `key_files`", "did you mean `key_file`?"]),
        ("kind = \"openai\"\nkey_file = \"KEY\"\ncredential = \"a\"", 4, ["exclude each other", "key_file"]),
        ("kind = \"vllm\"", 1, ["base_url is missing", "such as base_url"]),
        ("kind = \"vllm\"\nbase_url = \"gpu:8000\"", 4, ["base_url", "must be http://host"]),
        (
            "kind = \"vllm\"\nbase_url = \"https://gpu/v1?token=abcdef\"",
            4,
            ["a host, a port and a path only", "\"https://gpu/v1\""],
        ),
        ("kind = \"bedrock\"\nkey_file = \"KEY\"", 1, ["region is missing", "eu-central-1"]),
        ("kind = \"ollama\"\nregion = \"eu-central-1\"", 4, ["region means nothing to the kind ollama", ""]),
        ("kind = \"vertex\"\nkey_file = \"KEY\"", 4, ["openai.key", "service account"]),
        (
            "kind = \"ollama\"\nbase_url = \"https://gpu.plant.example\"\nca_file = \"KEY\"",
            5,
            ["openai.key", "no certificate"],
        ),
        ("kind = \"ollama\"\nmodels = [{ nam = \"a\", upstream = \"b\" }]", 4, ["a model is its name, or {", ""]),
        ("kind = \"ollama\"\nmodels = [\"a\", \"a\"]", 4, ["models holds \"a\" twice", ""]),
        ("kind = \"ollama\"\nconnections_max = \"9\"", 4, ["expected u32", "without quotes"]),
        ("kind = \"ollama\"\nidle_timeout_ms = 0", 4, ["idle_timeout_ms must be 1 to", ""]),
        ("kind = \"ollama\"\nheaders = { Authorization = \"x\" }", 4, ["a key belongs into key_file", ""]),
    ] {
        finds(&format!("{head}{more}"), false, line, &says);
    }
    finds(
        "[[provider]]\nname = \"openai\"\nkind = \"ollama\"",
        false,
        2,
        &["two providers are called openai", "names must differ"],
    );
    finds(
        "[[provider]]\nname = \"local\"\nkind = \"ollama\"",
        false,
        2,
        &["`local` stands for this box", "another name"],
    );
    finds("[[providers]]\nname = \"a\"", false, 1, &["unknown field `providers`", "did you mean `provider`?"]);
}

#[test]
fn a_key_in_the_configuration_is_refused_and_not_repeated() {
    let secret = "sk-proj-abcdefghijklmnop";
    let (_, said) = check("[[provider]]\nname = \"a\"\nkind = \"vllm\"\nbase_url = \"https://gpu/v1?token=hunter2\"");
    assert!(said.contains("https://gpu/v1") && !said.contains("hunter2"), "{said}");
    for (line, says) in [
        ("api_key = \"SECRET\"", "a key never stands in here: write it into a file"),
        ("key = \"SECRET\"", "a key never stands in here: write it into a file"),
        ("key_file = \"SECRET\"", "key_file holds what looks like a key"),
        ("key_file = \"KEY\"\nheaders = { x-title = \"SECRET\" }", "holds \"x-title\", which carries a key"),
        (
            "key_file = \"KEY\"\nheaders = { Helicone-Auth = \"SECRET\" }",
            "holds \"Helicone-Auth\", which carries a key",
        ),
        ("models = \"SECRET\"", "expected a sequence"),
    ] {
        let more = format!("[[provider]]\nname = \"a\"\nkind = \"openai\"\n{line}").replace("SECRET", secret);
        let (starts, said) = check(&more);
        assert!(!starts && said.contains(says), "{line}: {said}");
        assert!(!said.contains(secret), "{line}: {said}");
    }
}

#[test]
fn routes_that_lead_nowhere_are_found() {
    let head = "[[route]]\nname = \"r\"\nmodels = [\"m\"]\n";
    for (more, line, says) in [
        ("candidate = [{ provider = \"openia\" }]", 4, ["there is no provider openia", "did you mean `openai`?"]),
        (
            "candidate = [{ provider = \"mistral\" }]",
            4,
            ["there is no provider mistral", "add a [[provider]] with name = \"mistral\""],
        ),
        ("candidates = [{ provider = \"openai\" }]", 4, ["unknown field `candidates`", "did you mean `candidate`?"]),
        ("candidate = []", 4, ["candidate: 0 of them; a route has 1 to 64", ""]),
        ("strategy = \"cheapest\"", 4, ["unknown variant `cheapest`", "`cost`"]),
        ("candidate = [{ provider = \"openai\", links = [\"on\"] }]", 4, ["unknown variant `on`", "`metered`"]),
        ("candidate = [{ provider = \"openai\", links = [] }]", 4, ["links: it is empty", "leave it out"]),
        ("candidate = [{ provider = \"openai\", model = \"*\" }]", 4, ["its `*` stands for", "exactly one"]),
        (
            "candidate = [{ provider = \"openai\" }, { provider = \"openai\" }]",
            4,
            ["it stands there twice", "give one a weight"],
        ),
        (
            "when.languages = [\"xx\"]\ncandidate = [{ provider = \"openai\" }]",
            4,
            ["\"xx\" is none that is told apart", "en, de"],
        ),
        (
            "retries.attempts_max = 0\ncandidate = [{ provider = \"openai\" }]",
            4,
            ["retries.attempts_max: 0; it is 1 to 64", ""],
        ),
        ("timeout_ms = 0\ncandidate = [{ provider = \"openai\" }]", 4, ["timeout_ms: 0 ms; it is 1 to", ""]),
    ] {
        finds(&format!("{head}{more}"), false, line, &says);
    }
    for (more, line, says) in [
        (
            "candidate = [{ provider = \"plant-gpu\", model = \"qwen2.5-7b\" }]",
            4,
            ["has no model qwen2.5-7b", "did you mean `qwen2.5-72b`?"],
        ),
        (
            "candidate = [{ provider = \"local\", model = \"qwen\" }]",
            4,
            ["no usable model qwen in", "would not answer"],
        ),
    ] {
        finds(&format!("{head}{more}"), true, line, &says);
    }
    let again = "[[route]]\nname = \"chat\"\nmodels = [\"m\"]\ncandidate = [{ provider = \"openai\" }]";
    finds(again, false, 2, &["two routes are called chat", "names must differ"]);
    let shaded = "[[route]]\nname = \"r\"\nmodels = [\"gpt-4o\"]\ncandidate = [{ provider = \"openai\" }]";
    finds(shaded, true, 3, &["gpt-4o never comes here: route chat has it", "give chat a `when`"]);
    finds("[[route]]\nname = \"r\"\nmodels = \"m\"", false, 3, &["expected a sequence", "in brackets"]);
    finds("[routing]\nlink_back_ms = 86400001", false, 2, &["link_back_ms: 86400001 ms; it is 0 to"]);
    finds("[routing.breaker]\nfailure = 3", false, 2, &["unknown field `failure`", "did you mean `failures`?"]);
}

#[test]
fn limits_prices_and_kept_answers_that_cannot_be_are_found() {
    let mut two = "[[quota.limit]]\nlevel = \"key\"\nrequests_per_day = 1\n".repeat(2);
    finds(&two, false, 4, &["limit stands twice for every key"]);
    let embeds = "[cache.semantic]\nmax_entries = 10\nmodel = \"digit\"";
    finds(embeds, true, 3, &["there is no model digit in", "did you mean `digits`?"]);
    two.push_str("[quota]\n");
    for (more, line, says) in [
        (
            "[[quota.limit]]\nlevel = \"tenants\"\nusd_per_day = 1",
            2,
            ["nothing is counted at the level tenants", "did you mean `tenant`?"],
        ),
        ("[[quota.limit]]\nlevel = \"key\"", 1, ["every key sets no limit", ""]),
        ("[[quota.limit]]\nlevel = \"key\"\nusd_per_day = \"5 USD\"", 3, ["no amount of dollars", "0.25"]),
        ("[[quota.limit]]\nlevel = \"key\"\nrequests_per_minute = \"60\"", 3, ["expected u64", "without quotes"]),
        ("[[quota.limits]]\nlevel = \"key\"", 1, ["unknown field `limits`", "did you mean `limit`?"]),
        ("[quota]\ntime_zone = \"Mars\"", 2, ["Mars", "Europe/Berlin"]),
        ("[quota]\nwarn_percent = [80, 80]", 2, ["warn_percent takes at most 8 numbers", ""]),
        ("[quota]\nwhen_unknown = \"deny\"", 2, ["unknown variant `deny`", "`refuse` or `admit`"]),
        ("[ledger]\nkeep_days = 0", 2, ["keep_days is 0", "leave it out"]),
        ("[ledger]\nflush_ms = 1", 2, ["flush_ms is 1; use 10 to", ""]),
        ("[answer]\ntimeout = 3", 2, ["unknown field `timeout`", "did you mean `timeout_ms`?"]),
        ("[answer]\ntimeout_ms = 3", 2, ["timeout_ms is 3; use 100 to", ""]),
        ("[http.llm]\nping_ms = 0", 2, ["ping_ms is 0; use 100 to", ""]),
        ("[cache]\nmax_bytes = \"32MB\"", 2, ["expected u64", "without quotes"]),
        ("[cache.policy]\nexact = true", 1, ["expected a sequence", "double brackets"]),
        ("[cache.semantic]\nmodel = \"digits\"\nmax_entries = 1000000", 3, ["at most 100000", ""]),
        (
            "[cache.semantic]\nmax_entries = 10",
            1,
            ["nothing makes vectors of texts", "a model of this box that embeds"],
        ),
        ("[generate]\nstep_tokens = 0", 2, ["step_tokens is 0, expected at least 1", ""]),
        (
            "[generate]\nanswer_tokens = 9000",
            2,
            ["answer_tokens is 9000, expected at most answer_tokens_max, 4096", ""],
        ),
        ("[[cache.policy]]\nthreshold = 95.0", 2, ["a cosine from 0 to 1", "0.95"]),
        ("[[cache.policy]]\nleave_out = [\"messages\"]", 2, ["must not name `messages`", ""]),
        (
            "[prices]\nlitellm_file = \"/nowhere/prices.json\"",
            2,
            ["failed to open /nowhere/prices.json", "docs/prices.md"],
        ),
        (
            "[prices]\nlitellm_file = \"FOLDER/page.html\"",
            2,
            ["page.html: expected value at line 1", "as it was downloaded"],
        ),
        ("[prices]\nmodels_dev_file = \"FOLDER/empty.json\"", 2, ["has no price in it", "is this the table"]),
        ("[[prices.model]]\nprovider = \"openai\"\nmodel = \"m\"", 1, ["give `usd_per_million_tokens`", "or `like`"]),
        (
            "[[prices.model]]\nprovider = \"openai\"\nmodel = \"m\"\nlike = \"gpt-4o\"",
            1,
            ["`like` names a provider and a model", ""],
        ),
        (
            "[[prices.model]]\nprovider = \"openai\"\nmodel = \"m\"\nusd_per_million_tokens = { input = -1.0 }",
            1,
            ["input", "-1"],
        ),
        ("[prices.local]\nusd_per_kwh = -1.0", 2, ["prices.local.usd_per_kwh: -1 is not from 0", ""]),
    ] {
        finds(more, false, line, &says);
    }
    for (more, line, says) in [
        (
            "[[quota.limit]]\nlevel = \"model\"\nname = \"gpt-4\"\nusd_per_day = 1",
            3,
            ["no route has the model gpt-4", "did you mean `gpt-4o`?"],
        ),
        (
            "[cache]\nmax_bytes = 1000\n[[cache.policy]]\nexact = true\nroutes = [\"chta\"]",
            5,
            ["there is no route chta", "did you mean `chat`?"],
        ),
        (
            "[[prices.model]]\nprovider = \"openia\"\nmodel = \"m\"\nusd_per_request = 1.0",
            2,
            ["no provider has the name or kind openia", "did you mean `openai`?"],
        ),
        (
            "[[access.identity]]\nname = \"a\"\nkey_sha256 = \"b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9\"\nroutes = [\"chatt\"]",
            4,
            ["no route is called so", "did you mean `chat`?"],
        ),
    ] {
        finds(more, true, line, &says);
    }
}

#[test]
fn choices_that_surprise_later_are_pointed_out() {
    for (more, says) in [
        (
            "[[provider]]\nname = \"a\"\nkind = \"vllm\"\nkey_file = \"KEY\"\nbase_url = \"http://gpu.plant.example\"",
            "without encryption",
        ),
        ("[[provider]]\nname = \"a\"\nkind = \"openai\"\ncredential = \"a\"", "only when systemd starts the gateway"),
        (
            "[[provider]]\nname = \"a\"\nkind = \"ollama\"\n[[route]]\nname = \"r\"\nmodels = [\"m\"]\ncandidate = [{ provider = \"a\" }]",
            "a is on this machine (reach = \"box\"), and counts as the cloud",
        ),
        (
            "[[route]]\nname = \"r\"\nmodels = [\"m\"]\ncandidate = [{ provider = \"openai\", links = [\"up\"] }]",
            "route r: nobody watches the link",
        ),
        ("[[quota.limit]]\nlevel = \"key\"\nusd_per_day = 1", "no price is known for openai/gpt-4o"),
        ("[cache]\nmax_bytes = 1000", "no cache.policy uses it"),
        (
            "[[prices.model]]\nprovider = \"openai\"\nmodel = \"m\"\nlike = \"openai/gpt-9\"",
            "is priced like openai/gpt-9, which no table has",
        ),
    ] {
        let (starts, said) = check(more);
        let notes: Vec<_> = said.lines().filter(|line| line.starts_with("note: ") && line.contains(says)).collect();
        assert!(starts && notes.len() == 1, "{more}\n{said}");
    }
    let priced = "[[quota.limit]]\nlevel = \"key\"\nusd_per_day = 1\n[[prices.model]]\nprovider = \"openai\"\nmodel = \"gpt-4o\"\nusd_per_million_tokens = { input = 2.5, output = 10.0 }";
    assert!(!check(priced).1.contains("no price is known"));
}

/// Every setting of the example, also those that are there to be taken in: marks away, and files where it names some.
#[test]
fn the_example_is_right_as_it_is_and_with_everything_in_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = std::fs::read_to_string(root.join("examples/llm.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let models = format!("folder = {:?}", root.join("models"));
    let as_it_is = example.replace("folder = \"models\"", &models);
    let is_setting = |line: &str| {
        let line = line.strip_prefix("# ").unwrap_or("");
        let name = line.split(" = ").next().unwrap_or("");
        let is_key = line.contains(" = ")
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.0123456789".contains(&byte));
        line.starts_with('[') || is_key
    };
    let whole: String = as_it_is
        .lines()
        .map(|line| if is_setting(line) { line[2..].to_owned() + "\n" } else { line.to_owned() + "\n" })
        .collect();
    assert!(whole.len() < as_it_is.len() - 200, "marks were taken away");
    let certificate = rcgen::generate_simple_self_signed(["plant".to_owned()]).unwrap().cert.pem();
    let files = [
        ("openai.key", "sk-0123456789"),
        ("azure.key", "0123456789"),
        ("aws", "[plant]\naws_access_key_id = a\naws_secret_access_key = b\n"),
        ("plant-ca.pem", &certificate),
        ("model_prices_and_context_window.json", PRICES),
        ("models_dev.json", MODELS_DEV),
    ];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    // A model that is there.
    let whole = whole.replace("\"minilm\"", "\"digits\"");
    let whole = whole.replace("/etc/forebay/", &format!("{}/", folder.path().display()));
    for text in [as_it_is, whole] {
        let file = folder.path().join("llm.toml");
        std::fs::write(&file, &text).unwrap();
        let (code, said, _) = forebay_says(&["check", "--config", file.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("llm.toml: fine"), "{said}");
    }
}

const PRICES: &str = r#"{"gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05}}"#;
const MODELS_DEV: &str = r#"{"anthropic": {"id": "anthropic", "models": {"claude-x": {"id": "claude-x", "cost": {"input": 3, "output": 15}}}}}"#;

/// Each example of the manual is a part of a configuration: nothing is wrong with it but files that are not here, and
/// providers of other examples.
#[test]
fn the_examples_of_the_manual_are_configurations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("box.toml");
    let mut examples = 0;
    for page in ["llm", "keys", "providers", "routes", "quotas", "prices", "cache", "local-llm"] {
        let text = std::fs::read_to_string(root.join(format!("docs/{page}.md"))).unwrap();
        let all = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        // The lender's file is another program's; `e2e_leases` reads that one.
        for example in all.filter(|example| !example.contains("[[budget]]")) {
            std::fs::write(&file, format!("{example}\n[gateway]\nname = \"box\"\n")).unwrap();
            let (_, said, _) = forebay_says(&["check", "--config", file.to_str().unwrap()]);
            let known = ["failed to open /etc/forebay/", "there is no provider "];
            let is_wrong = |line: &&str| line.starts_with("error: ") && !known.iter().any(|known| line.contains(known));
            let wrong = said.lines().find(is_wrong);
            assert_eq!(wrong, None, "docs/{page}.md:\n{example}\n{said}");
            examples += 1;
        }
    }
    assert!(examples >= 12, "{examples}");
}

#[test]
fn a_limit_of_a_name_that_no_candidate_has_is_remarked() {
    let limit =
        |name: &str| check(&format!("[[quota.limit]]\nlevel = \"model\"\nname = \"{name}\"\nrequests_per_day = 9"));
    let (starts, said) = limit("chat");
    assert!(starts && said.contains("a limit of the model chat holds for requests by that name only"), "{said}");
    let (starts, said) = limit("gpt-4o");
    assert!(starts && !said.contains("by that name only"), "{said}");
}
