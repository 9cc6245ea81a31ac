use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;

use super::{
    AdapterConfig, AdapterFusionMethod, AdapterKind, AdapterMethod, AdapterTraining, FusionKind,
    Head, HeadOnlyMethod, LoraBias, LoraMethod, MethodConfig, MethodKind, NonLinearity, Part,
    Source, Targets, baseline::read_tfidf, setup_names,
};
use crate::config::MAX_EPOCHS;
use crate::document::{Node, Value};
use crate::reader::{FromNode, Reader};

const NON_LINEARITIES: [(&str, NonLinearity); 6] = [
    ("preset", NonLinearity::Preset),
    ("relu", NonLinearity::Relu),
    ("gelu", NonLinearity::Gelu),
    ("gelu_new", NonLinearity::GeluNew),
    ("swish", NonLinearity::Swish),
    ("tanh", NonLinearity::Tanh),
];

type ReadMethod = fn(&mut Reader<'_>) -> MethodConfig;

/// Each method's name, with what reads its keys.
const METHODS: [(&str, ReadMethod); 7] = [
    (MethodKind::Vanilla.name(), |_| MethodConfig::Vanilla),
    (MethodKind::Lora.name(), |method| MethodConfig::Lora(read_lora(method))),
    (MethodKind::Adapter.name(), |method| MethodConfig::Adapter(read_adapter_method(method))),
    (MethodKind::AdapterFusion.name(), |method| MethodConfig::AdapterFusion(read_fusion(method))),
    (MethodKind::HeadOnly.name(), |method| MethodConfig::HeadOnly(read_head_only(method))),
    (MethodKind::Majority.name(), |_| MethodConfig::Majority),
    (MethodKind::Tfidf.name(), |method| MethodConfig::Tfidf(read_tfidf(method))),
];

pub(crate) fn read_method(method: &mut Reader<'_>) -> MethodConfig {
    let read = method.choice("name", &METHODS);
    if !method.is_sound("name") {
        // Which keys belong here is not known.
        method.entries();
        return MethodConfig::Vanilla;
    }
    read(method)
}

fn read_head_only(method: &mut Reader<'_>) -> HeadOnlyMethod {
    let trains = method.get_if("trains", "one or more parts", |parts: &Vec<_>| !parts.is_empty());
    HeadOnlyMethod { trains }
}

fn read_adapter_method(method: &mut Reader<'_>) -> AdapterMethod {
    let adapter = AdapterMethod {
        setup: method.get("setup"),
        head: read_head(method),
        trains: method.get("trains"),
        adapter: read_adapter(method),
        sources: read_sources(method),
    };
    check_setup(method, "setup", &adapter.setup, &adapter.adapter, &adapter.sources, false);
    adapter
}

fn read_fusion(method: &mut Reader<'_>) -> AdapterFusionMethod {
    let fusion = AdapterFusionMethod {
        setup: method.get("setup"),
        adapter_setup: method.get("adapter_setup"),
        fusion: method
            .choice("fusion", &[("dynamic", FusionKind::Dynamic), ("static", FusionKind::Static)]),
        regularization: method.get("regularization"),
        unfreeze_adapters: method.get("unfreeze_adapters"),
        keep_head: method.get("keep_head"),
        head: read_head(method),
        trains: method.get("trains"),
        adapter: read_adapter(method),
        adapter_training: method
            .table("adapter_training", |training| AdapterTraining {
                num_train_epochs: training.within("num_train_epochs", 1..=MAX_EPOCHS),
                learning_rate: training
                    .within("learning_rate", (Bound::Excluded(0.0), Bound::Included(1.0))),
            })
            .unwrap_or(AdapterTraining { num_train_epochs: 0, learning_rate: 0.0 }),
        sources: read_sources(method),
    };
    for (key, setup) in [("setup", &fusion.setup), ("adapter_setup", &fusion.adapter_setup)] {
        let fused = key == "setup";
        check_setup(method, key, setup, &fusion.adapter, &fusion.sources, fused);
    }
    if fusion.regularization && fusion.fusion == FusionKind::Static {
        method.problem(
            "regularization",
            "expected false: a static fusion has no value matrix to regularise",
        );
    }
    fusion
}

fn read_lora(method: &mut Reader<'_>) -> LoraMethod {
    let lora = LoraMethod {
        rank: method.within("rank", 1..=16_384),
        alpha: method.get("alpha"),
        dropout: method.within("dropout", 0.0..1.0),
        target_modules: method.get("target_modules"),
        // PEFT would take the keyword of the targets for a regular expression, which matches nothing.
        exclude_modules: method.get_if(
            "exclude_modules",
            "an array of layer names or a regular expression",
            |layers: &Targets| *layers != Targets::Text("all-linear".into()),
        ),
        layers_to_transform: method.get("layers_to_transform"),
        rank_pattern: read_map(method, "rank_pattern"),
        alpha_pattern: read_map(method, "alpha_pattern"),
        use_rslora: method.get("use_rslora"),
        use_dora: method.get("use_dora"),
        bias: method.choice(
            "bias",
            &[("none", LoraBias::None), ("all", LoraBias::All), ("lora_only", LoraBias::LoraOnly)],
        ),
        trains: method.get("trains"),
        start: method.table_if_any("start", read_source),
    };
    if lora
        .start
        .as_ref()
        .is_some_and(|start| start.invertible_non_linearity != NonLinearity::Preset)
    {
        method.problem("start", "LoRA has no invertible block: expected \"preset\"");
    }
    lora
}

fn read_head(method: &mut Reader<'_>) -> Head {
    method.choice("head", &[("classifier", Head::Classifier), ("flex", Head::Flex)])
}

fn read_adapter(method: &mut Reader<'_>) -> AdapterConfig {
    let adapter = method.table("adapter", read_bottleneck);
    adapter.unwrap_or(AdapterConfig {
        name: String::new(),
        config: AdapterKind::Pfeiffer,
        reduction_factor: 1.0,
        layer_reduction_factors: BTreeMap::new(),
        leave_out: Vec::new(),
        non_linearity: NonLinearity::Preset,
        invertible: false,
        dropout: 0.0,
    })
}

pub(crate) fn read_bottleneck(adapter: &mut Reader<'_>) -> AdapterConfig {
    AdapterConfig {
        name: adapter.get_if("name", "letters, digits, `_` and `-`", |name: &String| {
            let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
            !name.is_empty() && name.chars().all(valid)
        }),
        config: adapter.choice(
            "config",
            // adapters' names of before, which are those of the papers, and of today.
            &[
                ("pfeiffer", AdapterKind::Pfeiffer),
                ("seq_bn", AdapterKind::Pfeiffer),
                ("houlsby", AdapterKind::Houlsby),
                ("double_seq_bn", AdapterKind::Houlsby),
            ],
        ),
        reduction_factor: adapter
            .within("reduction_factor", (Bound::Excluded(0.0), Bound::Unbounded)),
        layer_reduction_factors: read_map(adapter, "layer_reduction_factors"),
        leave_out: adapter.get("leave_out"),
        non_linearity: adapter.choice("non_linearity", &NON_LINEARITIES),
        invertible: adapter.get("invertible"),
        dropout: adapter.within("dropout", 0.0..1.0),
    }
}

fn read_sources(method: &mut Reader<'_>) -> BTreeMap<String, Source> {
    let sources = method.table_if_any("sources", |sources| {
        let names = sources.keys();
        let read = names.into_iter().filter_map(|name| {
            let source = sources.table(&name, read_source)?;
            Some((name, source))
        });
        read.collect()
    });
    sources.unwrap_or_default()
}

fn read_source(source: &mut Reader<'_>) -> Source {
    Source {
        from: source.get("from"),
        invertible_non_linearity: source.choice("invertible_non_linearity", &NON_LINEARITIES),
        path: PathBuf::from(source.get::<String>("path")),
        sha256: source.get("sha256"),
    }
}

/// A table from free keys to values.
fn read_map<T: FromNode>(method: &mut Reader<'_>, name: &str) -> BTreeMap<String, T> {
    let read = method.table(name, |map| {
        let names = map.keys();
        names.into_iter().map(|name| (name.clone(), map.get(&name))).collect()
    });
    read.unwrap_or_default()
}

/// Every adapter of a setup is the one that trains, or has a source; what is to train is there.
fn check_setup(
    method: &mut Reader<'_>,
    key: &str,
    setup: &str,
    adapter: &AdapterConfig,
    sources: &BTreeMap<String, Source>,
    fused: bool,
) {
    if !method.is_sound(key) {
        return;
    }
    let names = match setup_names(setup) {
        Ok(names) => names,
        Err(message) => return method.problem(key, message),
    };
    if fused && !setup.contains("Fuse(") {
        method.problem(key, "expected a `Fuse(...)`, whose layer trains");
    }
    if !method.is_sound("adapter.name") || !method.is_sound("sources") {
        return;
    }
    for name in &names {
        if *name != adapter.name && !sources.contains_key(*name) {
            method.problem(
                key,
                format!(
                    "`{name}` is neither the adapter that trains (`{}`) nor has it a source: give \
                     one in [method.sources.{name}]",
                    adapter.name
                ),
            );
        }
    }
    if !fused && !names.contains(&adapter.name.as_str()) {
        method.problem(key, format!("the adapter that trains, `{}`, is not in it", adapter.name));
    }
}

impl FromNode for Targets {
    fn expected() -> String {
        "an array of layer names, a regular expression, or \"all-linear\"".into()
    }
    fn from_node(node: &Node) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(Self::Text(text.clone())),
            _ => Vec::from_node(node).map(Self::List),
        }
    }
    fn wrong_item(node: &Node) -> Option<(usize, String)> {
        Vec::<String>::wrong_item(node)
    }
    fn placeholder() -> Self {
        Self::List(Vec::new())
    }
}

impl FromNode for Part {
    fn expected() -> String {
        "\"head\", \"pooler\", \"layer_norm\" or \"embeddings\"".into()
    }
    fn from_node(node: &Node) -> Option<Self> {
        match &node.value {
            Value::String(text) => match text.as_str() {
                "head" => Some(Self::Head),
                "pooler" => Some(Self::Pooler),
                "layer_norm" => Some(Self::LayerNorm),
                "embeddings" => Some(Self::Embeddings),
                _ => None,
            },
            _ => None,
        }
    }
    fn placeholder() -> Self {
        Self::Head
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Document;

    fn read_text(text: &str) -> Result<MethodConfig, String> {
        let document = Document::parse(text, Path::new("run.toml")).unwrap();
        let mut reader = Reader::new(&document.root);
        let method = read_method(&mut reader);
        reader.finish(Some(method)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_name_reads_the_method_that_has_it() {
        let document = Document::parse("", Path::new("run.toml")).unwrap();
        for (name, read) in METHODS {
            let method = read(&mut Reader::new(&document.root));
            assert_eq!(method.name(), name);
            assert_eq!(serde_json::to_value(&method).unwrap()["name"], name, "in records, too");
        }
        let known = METHODS.map(|(name, _)| name);
        assert!(MethodKind::ALL.iter().all(|kind| known.contains(&kind.name())));
    }

    fn read_adapter_of(name: &str, config: &str, leave_out: &str) -> Result<MethodConfig, String> {
        read_text(&format!(
            r#"
            name = "adapter"
            setup = "nsmc"
            head = "flex"
            trains = []
            [adapter]
            name = "{name}"
            config = "{config}"
            reduction_factor = 8
            layer_reduction_factors = {{}}
            leave_out = {leave_out}
            non_linearity = "preset"
            invertible = true
            dropout = 0.0
            "#
        ))
    }

    #[test]
    fn an_adapter_goes_by_either_name_of_the_library() {
        let read = |config: &str| read_adapter_of("nsmc", config, "[]");
        assert_eq!(read("seq_bn"), read("pfeiffer"));
        assert_eq!(read("double_seq_bn"), read("houlsby"));
        assert_ne!(read("seq_bn").unwrap(), read("double_seq_bn").unwrap());
        let message = read("par_bn").unwrap_err();
        assert!(message.contains("\"pfeiffer\", \"seq_bn\", \"houlsby\""), "{message}");
    }

    #[test]
    fn an_adapter_without_a_name_is_one_mistake() {
        let message = read_adapter_of("../x", "pfeiffer", "[-1]");
        let message = message.unwrap_err();
        assert_eq!(message.lines().count(), 3, "{message}");
        assert!(message.contains("`adapter.name`: expected letters, digits"), "{message}");
        assert!(
            message.contains("`adapter.leave_out[0]`: expected an integer from 0"),
            "{message}"
        );
    }

    fn read(exclude_modules: &str) -> Result<MethodConfig, String> {
        read_text(&format!(
            r#"
            name = "lora"
            rank = 4
            alpha = 8
            dropout = 0.0
            target_modules = "all-linear"
            exclude_modules = {exclude_modules}
            layers_to_transform = []
            rank_pattern = {{}}
            alpha_pattern = {{}}
            use_rslora = false
            use_dora = false
            bias = "none"
            trains = []
            "#
        ))
    }

    #[test]
    fn all_linear_layers_can_be_targeted_but_not_excluded() {
        let Ok(MethodConfig::Lora(method)) = read(r#"".*pooler.*""#) else { panic!("no LoRA") };
        assert_eq!(method.target_modules, Targets::Text("all-linear".into()));
        assert_eq!(method.exclude_modules, Targets::Text(".*pooler.*".into()));
        let message = read(r#""all-linear""#).unwrap_err();
        for expected in [
            "`exclude_modules`: expected an array of layer names or a regular expression",
            "found the string \"all-linear\"",
        ] {
            assert!(message.contains(expected), "{expected}\nis not in\n{message}");
        }
    }
}
