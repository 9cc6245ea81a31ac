//! From a method's configuration to a model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nsmc_bert::Activation;
use nsmc_experiment::{
    AdapterConfig, AdapterFusionMethod, AdapterKind, AdapterMethod, FusionKind, Head, LoraBias,
    LoraMethod, MethodConfig, NonLinearity, Part, Source, Targets,
};
use nsmc_peft::{
    Bias, BottleneckConfig, Composition, FusionConfig, HeadKind, LoadOptions, LoraConfig,
    PeftModel, TargetModules, Trains,
};
use serde_json::{Value, json};

/// The name of the source of a head.
const HEAD: &str = "head";

/// The model that a run's first stage trains.
pub(crate) fn first_stage(base: PeftModel, method: &MethodConfig, seed: u64) -> Result<PeftModel> {
    match method {
        MethodConfig::Vanilla => Ok(base.train_only(Trains::everything())),
        MethodConfig::HeadOnly(method) => Ok(base.train_only(parts(&method.trains))),
        MethodConfig::Lora(method) => lora(base, method, seed),
        MethodConfig::Adapter(method) => {
            let AdapterMethod { setup, head, trains, adapter, sources } = method;
            check_sources(sources, &[setup])?;
            let sources = |name: &str| sources.get(name);
            adapter_stage(base, setup, adapter, *head, trains, &sources, seed)
        }
        MethodConfig::AdapterFusion(method) => {
            let AdapterFusionMethod { adapter_setup, head, trains, adapter, sources, .. } = method;
            check_sources(sources, &[adapter_setup, &method.setup])?;
            let sources = |name: &str| sources.get(name);
            let model = adapter_stage(base, adapter_setup, adapter, *head, trains, &sources, seed)?;
            // What would fail in the second stage fails now.
            fusion_stage(model.clone(), method, seed)?;
            Ok(model)
        }
        MethodConfig::Majority | MethodConfig::Tfidf(_) => {
            bail!("`method.name`: `{}` is a baseline, which has no model", method.name())
        }
    }
}

/// AdapterFusion's second stage, from the model of its first.
pub(crate) fn fusion_stage(
    mut model: PeftModel,
    method: &AdapterFusionMethod,
    seed: u64,
) -> Result<PeftModel> {
    let composition = Composition::parse(&method.setup).context("`method.setup`")?;
    for name in composition.names() {
        if model.adapters.adapter(name).is_none() {
            load_adapter(&mut model, name, method.sources.get(name))?;
        }
    }
    if !method.keep_head {
        model.renew_head(seed);
        load_head(&mut model, method.sources.get(HEAD), method.head)?;
    }
    let preset = match method.fusion {
        FusionKind::Dynamic => FusionConfig::dynamic(),
        FusionKind::Static => FusionConfig::static_(),
    };
    let config = FusionConfig { regularization: method.regularization, ..preset };
    for block in composition.fuse_blocks() {
        let name = block.fusions().swap_remove(0);
        // A fusion of one adapter has that adapter's name, which is the adapter's source.
        match method.sources.get(&name).filter(|_| name.contains(',')) {
            Some(source) => {
                let loaded =
                    model.load_fusion(&source.path).with_context(|| source.from.clone())?;
                ensure!(
                    loaded == name,
                    "`method.sources.\"{name}\"`: the fusion layer there is of `{loaded}`; the \
                     order of a fusion's adapters matters"
                );
                if let Some(found) = model.adapters.fusion(&name) {
                    check_fusion(&name, config, found.config())?;
                }
            }
            None => model.add_fusion(block, config, seed)?,
        }
    }
    let mut trains =
        Trains { fusions: composition.fusions().into_iter().collect(), ..parts(&method.trains) };
    if method.unfreeze_adapters {
        trains.bottlenecks = composition.names().into_iter().map(str::to_owned).collect();
    }
    model.set_active(Some(composition)).context("`method.setup`")?;
    Ok(model.train_only(trains))
}

/// A fusion layer that training goes on from is what `method.fusion` and `method.regularization` say.
fn check_fusion(name: &str, said: FusionConfig, found: FusionConfig) -> Result<()> {
    // Of a layer that is there, the rest changes nothing: where its values began, and which of two linear
    // steps comes first. Without a dropout of its own, or with 0, it has the model's.
    let in_effect = |config: FusionConfig| FusionConfig {
        value_before_softmax: true,
        value_initialized: false,
        dropout_prob: config.dropout_prob.filter(|&dropout| dropout > 0.0),
        ..config
    };
    let (Value::Object(said), Value::Object(found)) =
        (json!(in_effect(said)), json!(in_effect(found)))
    else {
        unreachable!("a struct is an object")
    };
    let keys = said.keys().filter(|&key| said[key] != found[key]);
    let differences: Vec<String> =
        keys.map(|key| format!("`{key}` is {}, there {}", said[key], found[key])).collect();
    ensure!(
        differences.is_empty(),
        "`method.sources.\"{name}\"`: expected a fusion layer as `method.fusion` and \
         `method.regularization` say: {}",
        differences.join("; ")
    );
    Ok(())
}

/// Every source is read: it is the head's, or that of an adapter or a fusion layer of the setups. And
/// what it says of an invertible block, only an adapter can have.
fn check_sources(sources: &BTreeMap<String, Source>, setups: &[&String]) -> Result<()> {
    let mut adapters = Vec::new();
    let mut read = vec![HEAD.to_owned()];
    for setup in setups {
        let composition = Composition::parse(setup).context("the setup of the adapters")?;
        adapters.extend(composition.names().into_iter().map(str::to_owned));
        read.extend(composition.names().into_iter().map(str::to_owned));
        read.extend(composition.fusions());
    }
    for (name, source) in sources.iter().filter(|(name, _)| !adapters.contains(name)) {
        let what = if name == HEAD { "a head" } else { "a fusion layer" };
        ensure!(
            !read.contains(name) || source.invertible_non_linearity == NonLinearity::Preset,
            "`method.sources.\"{name}\".invertible_non_linearity`: {what} has no invertible block: \
             expected \"preset\""
        );
    }
    let unread = sources.keys().find(|name| !read.contains(name));
    unread.map_or(Ok(()), |name| {
        // A name may stand in both setups.
        let mut named = BTreeSet::new();
        read.retain(|name| named.insert(name.clone()));
        bail!(
            "`method.sources.\"{name}\"`: nothing is read from it: expected one of {}",
            read.join("; ")
        )
    })
}

fn adapter_stage<'a>(
    mut model: PeftModel,
    setup: &str,
    adapter: &AdapterConfig,
    head: Head,
    trained_parts: &[Part],
    sources: &dyn Fn(&str) -> Option<&'a Source>,
    seed: u64,
) -> Result<PeftModel> {
    let composition = Composition::parse(setup).context("the setup of the adapters")?;
    for name in composition.names() {
        match sources(name) {
            None if name == adapter.name => {
                let config = bottleneck(adapter).context("`method.adapter`")?;
                model.add_adapter(name, &config, seed).context("`method.adapter`")?;
            }
            source => {
                load_adapter(&mut model, name, source)?;
                let found = model.adapters.adapter(name).map(nsmc_peft::Adapter::config);
                if let Some(found) = found.filter(|_| name == adapter.name) {
                    check_start(adapter, found)?;
                }
            }
        }
    }
    if head == Head::Flex {
        model.add_head(&adapter.name, seed);
    }
    load_head(&mut model, sources(HEAD), head)?;
    model.set_active(Some(composition)).context("the setup of the adapters")?;
    let trains = Trains { adapters: [adapter.name.clone()].into(), ..parts(trained_parts) };
    Ok(model.train_only(trains))
}

/// An adapter that training goes on from is what `method.adapter` says.
fn check_start(adapter: &AdapterConfig, found: &BottleneckConfig) -> Result<()> {
    let said = bottleneck(adapter)?;
    if said == *found {
        return Ok(());
    }
    let source = format!("method.sources.{}", adapter.name);
    let mut differences = Vec::new();
    let mut differ = |key: &str, said: Value, found: Value| {
        if said != found {
            differences.push(format!("`{key}` is {said}, there {found}"));
        }
    };
    differ("reduction_factor", said.reduction_factor.into(), found.reduction_factor.into());
    differ(
        "layer_reduction_factors",
        json!(said.layer_reduction_factors),
        json!(found.layer_reduction_factors),
    );
    differ("leave_out", json!(said.leave_out), json!(found.leave_out));
    differ("non_linearity", json!(said.non_linearity), json!(found.non_linearity));
    differ("dropout", said.dropout.into(), found.dropout.into());
    differ("invertible", said.invertible.is_some().into(), found.invertible.is_some().into());
    if let (Some(said), Some(found)) = (said.invertible, found.invertible) {
        let key = format!("{source}.invertible_non_linearity");
        differ(&key, json!(said.non_linearity), json!(found.non_linearity));
        let key = "the invertible block's reduction factor";
        differ(key, said.reduction_factor.into(), found.reduction_factor.into());
    }
    // The rest are of `config`.
    let (Value::Object(said), Value::Object(found)) =
        (json!(of_kind(&said)), json!(of_kind(found)))
    else {
        unreachable!("a struct is an object")
    };
    let keys = said.keys().filter(|&key| said[key] != found[key]);
    let keys: Vec<String> =
        keys.map(|key| format!("`{key}` {} (there {})", said[key], found[key])).collect();
    if !keys.is_empty() {
        let kind = json!(adapter.config);
        differences.push(format!("`config` is {kind}, which has {}", keys.join(", ")));
    }
    bail!(
        "`method.adapter`: expected what the adapter of `{source}` is: {}",
        differences.join("; ")
    )
}

/// What of a configuration `method.adapter.config` decides by itself.
fn of_kind(config: &BottleneckConfig) -> BottleneckConfig {
    BottleneckConfig {
        reduction_factor: 1.0,
        layer_reduction_factors: BTreeMap::new(),
        leave_out: Vec::new(),
        non_linearity: Activation::Relu,
        dropout: 0.0,
        invertible: None,
        ..config.clone()
    }
}

fn load_adapter(model: &mut PeftModel, name: &str, source: Option<&Source>) -> Result<()> {
    let source = source.with_context(|| format!("`method.sources.{name}`: missing"))?;
    let options = LoadOptions {
        load_as: Some(name.into()),
        invertible_non_linearity: activation(source.invertible_non_linearity),
    };
    model
        .load_adapter(&source.path, &options)
        .with_context(|| format!("the adapter `{name}` ({})", source.from))?;
    Ok(())
}

fn load_head(model: &mut PeftModel, source: Option<&Source>, head: Head) -> Result<()> {
    let Some(source) = source else { return Ok(()) };
    let loaded =
        model.load_head(&source.path).with_context(|| format!("the head ({})", source.from))?;
    ensure!(
        (loaded == HeadKind::Own) == (head == Head::Flex),
        "`method.head`: expected \"{}\", the kind of the head in {}",
        if loaded == HeadKind::Own { "flex" } else { "classifier" },
        source.from
    );
    Ok(())
}

fn lora(mut model: PeftModel, method: &LoraMethod, seed: u64) -> Result<PeftModel> {
    let config = lora_config(method);
    for (key, message) in
        config.without_effect(model.config().num_hidden_layers).context("[method]")?
    {
        tracing::warn!("`method.{key}`: {message}");
    }
    match &method.start {
        None => model.add_lora(&config, seed).context("[method]")?,
        Some(Source { path, from, .. }) if is_state_dict(path) => {
            model.load_loralib(path, &config).with_context(|| from.clone())?;
        }
        Some(Source { path, from, .. }) => {
            model.load_peft(path, Some(&config)).with_context(|| from.clone())?;
        }
    }
    let bias = match method.bias {
        LoraBias::None => Bias::None,
        LoraBias::All => Bias::All,
        LoraBias::LoraOnly => Bias::LoraOnly,
    };
    let model = model.train_only(Trains { lora: true, bias, ..parts(&method.trains) });
    if let Some(layer) = model.lora_on_trained_layer() {
        bail!(
            "`method.target_modules`: LoRA on `{layer}`, which trains whole by `method.trains`; PEFT \
             leaves such a layer out: so does `method.exclude_modules`, or take it out of \
             `method.trains`"
        );
    }
    Ok(model)
}

/// A file that is no archive of PEFT's folder.
fn is_state_dict(path: &Path) -> bool {
    path.is_file() && path.extension().is_none_or(|extension| extension != "zip")
}

fn lora_config(method: &LoraMethod) -> LoraConfig {
    let names = |targets: &Targets| match targets {
        Targets::List(names) => TargetModules::List(names.clone()),
        Targets::Text(pattern) => TargetModules::Regex(pattern.clone()),
    };
    LoraConfig {
        rank: method.rank,
        alpha: method.alpha,
        dropout: method.dropout,
        target_modules: match &method.target_modules {
            Targets::Text(text) if text == "all-linear" => TargetModules::AllLinear,
            targets => names(targets),
        },
        exclude_modules: Some(names(&method.exclude_modules))
            .filter(|excluded| *excluded != TargetModules::List(Vec::new())),
        layers_to_transform: Some(method.layers_to_transform.clone())
            .filter(|layers| !layers.is_empty()),
        rank_pattern: method.rank_pattern.clone(),
        alpha_pattern: method.alpha_pattern.clone(),
        use_rslora: method.use_rslora,
        use_dora: method.use_dora,
    }
}

pub(crate) fn bottleneck(adapter: &AdapterConfig) -> Result<BottleneckConfig> {
    let preset = match adapter.config {
        AdapterKind::Pfeiffer => BottleneckConfig::pfeiffer(adapter.reduction_factor),
        AdapterKind::Houlsby => BottleneckConfig::houlsby(adapter.reduction_factor),
    };
    let layers = adapter.layer_reduction_factors.iter().map(|(layer, factor)| {
        let layer = layer.parse().with_context(|| {
            format!("`layer_reduction_factors`: expected layers from 0, found `{layer}`")
        })?;
        Ok((layer, *factor))
    });
    let config = BottleneckConfig {
        layer_reduction_factors: layers.collect::<Result<_>>()?,
        leave_out: adapter.leave_out.clone(),
        non_linearity: activation(adapter.non_linearity).unwrap_or(preset.non_linearity),
        dropout: adapter.dropout,
        ..preset
    };
    Ok(if adapter.invertible { config.with_invertible() } else { config })
}

/// The non-linearity; none for that of the preset.
fn activation(non_linearity: NonLinearity) -> Option<Activation> {
    match non_linearity {
        NonLinearity::Preset => None,
        NonLinearity::Relu => Some(Activation::Relu),
        NonLinearity::Gelu => Some(Activation::Gelu),
        NonLinearity::GeluNew => Some(Activation::GeluNew),
        NonLinearity::Swish => Some(Activation::Swish),
        NonLinearity::Tanh => Some(Activation::Tanh),
    }
}

fn parts(parts: &[Part]) -> Trains {
    let has = |part| parts.contains(&part);
    Trains {
        head: has(Part::Head),
        pooler: has(Part::Pooler),
        layer_norm: has(Part::LayerNorm),
        embeddings: has(Part::Embeddings),
        ..Trains::nothing()
    }
}

#[cfg(test)]
mod tests {
    use nsmc_experiment::setup_names;

    use super::*;

    #[test]
    fn an_adapter_that_does_not_fit_is_told_by_its_keys() {
        let adapter = AdapterConfig {
            name: "nsmc".into(),
            config: AdapterKind::Pfeiffer,
            reduction_factor: 8.0,
            layer_reduction_factors: BTreeMap::new(),
            leave_out: vec![1],
            non_linearity: NonLinearity::Preset,
            invertible: false,
            dropout: 0.0,
        };
        let said = bottleneck(&adapter).unwrap();
        check_start(&adapter, &said).unwrap();
        let message =
            |found: &BottleneckConfig| check_start(&adapter, found).unwrap_err().to_string();
        let narrow = BottleneckConfig { reduction_factor: 16.0, leave_out: vec![], ..said.clone() };
        assert_eq!(
            message(&narrow.with_invertible()),
            "`method.adapter`: expected what the adapter of `method.sources.nsmc` is: \
             `reduction_factor` is 8.0, there 16.0; `leave_out` is [1], there []; `invertible` is \
             false, there true"
        );
        let houlsby = BottleneckConfig { leave_out: vec![1], ..BottleneckConfig::houlsby(8.0) };
        assert_eq!(
            message(&houlsby),
            "`method.adapter`: expected what the adapter of `method.sources.nsmc` is: \
             `non_linearity` is \"relu\", there \"swish\"; `config` is \"pfeiffer\", which has \
             `mh_adapter` false (there true), `original_ln_before` true (there false)"
        );
        let scaled = BottleneckConfig { scaling: 4.0, ..said.clone() };
        assert!(message(&scaled).ends_with("which has `scaling` 1.0 (there 4.0)"));
    }

    #[test]
    fn a_fusion_layer_that_does_not_fit_is_told_by_its_keys() {
        let said = FusionConfig::dynamic();
        let check = |found: FusionConfig| {
            check_fusion("ko,nsmc", said, found).map_err(|error| error.to_string())
        };
        for same in [
            said,
            FusionConfig { value_before_softmax: false, value_initialized: false, ..said },
            FusionConfig { dropout_prob: Some(0.0), ..said },
        ] {
            assert_eq!(check(same), Ok(()), "{same:?}");
        }
        for (found, expected) in [
            (FusionConfig { key: false, ..said }, "`key` is true, there false"),
            (
                FusionConfig { query_before_ln: true, ..said },
                "`query_before_ln` is false, there true",
            ),
            (
                FusionConfig { residual_before: true, ..said },
                "`residual_before` is false, there true",
            ),
            (FusionConfig { dropout_prob: Some(0.3), ..said }, "`dropout_prob` is null, there 0.3"),
            (
                FusionConfig::static_(),
                "`regularization` is true, there false; `value` is true, there false",
            ),
        ] {
            let message = check(found).unwrap_err();
            let start = "`method.sources.\"ko,nsmc\"`: expected a fusion layer as `method.fusion`";
            assert!(message.starts_with(start) && message.ends_with(expected), "{message}");
        }
    }

    #[test]
    fn only_an_adapter_has_an_invertible_block() {
        let source = |invertible_non_linearity| Source {
            from: "x".into(),
            invertible_non_linearity,
            path: "x".into(),
            sha256: String::new(),
        };
        let setup = "Fuse(ko, nsmc)".to_owned();
        let check = |name: &str, non_linearity| {
            let sources = BTreeMap::from([(name.to_owned(), source(non_linearity))]);
            check_sources(&sources, &[&setup]).map_err(|error| error.to_string())
        };
        for name in ["ko", "head", "ko,nsmc"] {
            assert_eq!(check(name, NonLinearity::Preset), Ok(()));
        }
        assert_eq!(check("ko", NonLinearity::Relu), Ok(()));
        for (name, what) in [("head", "a head"), ("ko,nsmc", "a fusion layer")] {
            let expected = format!(
                "`method.sources.\"{name}\".invertible_non_linearity`: {what} has no invertible \
                 block: expected \"preset\""
            );
            assert_eq!(check(name, NonLinearity::Relu), Err(expected));
        }
    }

    #[test]
    fn a_setup_is_to_the_configuration_what_it_is_to_the_model() {
        for setup in [
            "nsmc",
            " Fuse( ko,nsmc ) ",
            "Stack(ko, Fuse(Stack(x, a-1), 나_2), b)",
            "Fuse(Stack(ko, a), b)",
            "Stack(ko)",
            "Fuse",
            "",
            "Fuse()",
            "Fuse(ko, )",
            "Fuse(ko, nsmc",
            "Fuse(ko, nsmc))",
            "Fuse(ko, nsmc) x",
            "ko, nsmc",
            "[ko, nsmc]",
            "fuse(ko, nsmc)",
            "Fuse(ko/wiki@ukp, nsmc)",
            "Stack(Stack(a, b), c)",
            "Fuse(a, Fuse(b, c))",
            "Fuse(Stack(c, Fuse(a, b)), a)",
            "Stack(x, Fuse(Stack(c, Fuse(a, b)), a))",
        ] {
            let composition = Composition::parse(setup);
            let to_the_model = composition.as_ref().map(Composition::names).ok();
            assert_eq!(setup_names(setup).ok(), to_the_model, "{setup}");
        }
    }

    #[test]
    fn only_targets_may_be_all_linear() {
        let text = || Targets::Text("all-linear".into());
        let config = lora_config(&LoraMethod {
            rank: 4,
            alpha: 8.0,
            dropout: 0.0,
            target_modules: text(),
            exclude_modules: text(),
            layers_to_transform: Vec::new(),
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            use_rslora: false,
            use_dora: false,
            bias: LoraBias::None,
            trains: Vec::new(),
            start: None,
        });
        assert_eq!(config.target_modules, TargetModules::AllLinear);
        assert_eq!(config.exclude_modules, Some(TargetModules::Regex("all-linear".into())));
        assert_eq!(config.layers(2).map(|layers| layers.len()).ok(), Some(2 * 6 + 1));
    }
}
