use burn::module::Module;
use burn::nn::{Embedding, LayerNorm, Linear};
use burn::tensor::{Int, Tensor};
use nsmc_bert::{EmbeddingSite, Hooks, Init, LinearSite, SublayerSite, add_layer_norm, embed};

use crate::composition::{check_name, fusion_name};
use crate::{
    AdapterFusion, BottleneckAdapter, BottleneckConfig, Composition, FusionConfig, Lora,
    NiceCouplingBlock, PeftError,
};

/// Everything that is added to a BERT: bottleneck adapters, fusion layers and LoRA's updates. Put
/// into its forward pass as [`Hooks`].
#[derive(Module, Debug, Default)]
pub struct Adapters {
    /// Bottleneck adapters, each with its name.
    pub bottlenecks: Vec<Adapter>,
    /// AdapterFusion layers, each with its name.
    pub fusions: Vec<Fusion>,
    /// LoRA's updates.
    pub lora: Option<Lora>,
    #[module(skip)]
    active: Option<Composition>,
}

/// A named bottleneck adapter: one module per layer and place, and perhaps an invertible one.
#[derive(Module, Debug)]
pub struct Adapter {
    /// One entry per encoder layer.
    pub layer: Vec<AdapterLayer>,
    /// Behind the embeddings.
    pub invertible: Option<NiceCouplingBlock>,
    #[module(skip)]
    name: String,
    #[module(skip)]
    config: BottleneckConfig,
}

/// An adapter's modules in one encoder layer.
#[derive(Module, Debug)]
pub struct AdapterLayer {
    /// After attention.
    pub attention: Option<BottleneckAdapter>,
    /// After the feed-forward layer.
    pub output: Option<BottleneckAdapter>,
}

/// A named AdapterFusion: one module per layer and place.
#[derive(Module, Debug)]
pub struct Fusion {
    /// One entry per encoder layer.
    pub layer: Vec<FusionLayer>,
    #[module(skip)]
    name: String,
    #[module(skip)]
    config: FusionConfig,
}

/// A fusion's modules in one encoder layer.
#[derive(Module, Debug)]
pub struct FusionLayer {
    /// After attention.
    pub attention: Option<AdapterFusion>,
    /// After the feed-forward layer.
    pub output: Option<AdapterFusion>,
}

/// The size of the model that adapters are added to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ModelSize {
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) attention_dropout: f64,
}

impl Adapters {
    /// Adds a new bottleneck adapter.
    pub(crate) fn add_adapter(
        &mut self,
        name: &str,
        config: &BottleneckConfig,
        size: ModelSize,
        init: &Init<'_>,
    ) -> Result<(), PeftError> {
        check_name(name)?;
        config.check()?;
        if self.adapter(name).is_some() {
            return Err(PeftError::Taken(name.into()));
        }
        let init = init.enter("adapters").enter(name);
        let layer = (0..size.num_hidden_layers).map(|layer| {
            let module = |place: &str, wanted: bool| {
                let width = config.bottleneck_size(size.hidden_size, layer).filter(|_| wanted)?;
                let init = init.enter("layer").enter(layer).enter(place);
                Some(BottleneckAdapter::new(config, size.hidden_size, width, &init))
            };
            AdapterLayer {
                attention: module("attention", config.mh_adapter),
                output: module("output", config.output_adapter),
            }
        });
        self.bottlenecks.push(Adapter {
            layer: layer.collect(),
            invertible: config.invertible.map(|invertible| {
                NiceCouplingBlock::new(&invertible, size.hidden_size, &init.enter("invertible"))
            }),
            name: name.into(),
            config: config.clone(),
        });
        Ok(())
    }

    /// Adds a new fusion layer over adapters that are there already, for that order of them.
    pub(crate) fn add_fusion(
        &mut self,
        composition: &Composition,
        config: FusionConfig,
        size: ModelSize,
        init: &Init<'_>,
    ) -> Result<(), PeftError> {
        composition.check()?;
        let error = |message: String| {
            Err(PeftError::Composition { setup: composition.to_string(), message })
        };
        let Composition::Fuse(children) = composition else {
            return error("expected `Fuse(...)`".into());
        };
        let mut fused = Vec::new();
        for child in children {
            match self.adapter(child.last()) {
                Some(adapter) => fused.push(adapter),
                None => return error(self.no_adapter(child.last())),
            }
        }
        let places = |config: &BottleneckConfig| {
            (config.mh_adapter, config.output_adapter, config.leave_out.clone())
        };
        let first = &fused[0].config;
        if let Some(other) = fused.iter().find(|other| places(&other.config) != places(first)) {
            return error(format!(
                "the adapters `{}` and `{}` are not at the same places (`mh_adapter`, \
                 `output_adapter`, `leave_out`), so that they cannot be fused",
                fused[0].name, other.name
            ));
        }
        let name = fusion_name(children);
        if self.fusion(&name).is_some() {
            return Err(PeftError::Taken(name));
        }
        let (attention, output) = (first.mh_adapter, first.output_adapter);
        let init = init.enter("fusions").enter(&name);
        let layer = (0..size.num_hidden_layers).map(|layer| {
            let module = |place: &str, wanted: bool| {
                let init = init.enter("layer").enter(layer).enter(place);
                let dropout = size.attention_dropout;
                wanted.then(|| AdapterFusion::new(config, size.hidden_size, dropout, &init))
            };
            FusionLayer {
                attention: module("attention", attention),
                output: module("output", output),
            }
        });
        self.fusions.push(Fusion { layer: layer.collect(), name, config });
        Ok(())
    }

    /// Makes a composition active: it must name adapters and fusions that are there.
    pub(crate) fn set_active(&mut self, active: Option<Composition>) -> Result<(), PeftError> {
        if let Some(composition) = &active {
            composition.check()?;
            let error =
                |message| Err(PeftError::Composition { setup: composition.to_string(), message });
            for name in composition.names() {
                if self.adapter(name).is_none() {
                    return error(self.no_adapter(name));
                }
            }
            for name in composition.fusions() {
                if self.fusion(&name).is_none() {
                    let known: Vec<&str> = self.fusions.iter().map(Fusion::name).collect();
                    return error(format!(
                        "there is no fusion layer `{name}` (the order matters); there are: [{}]",
                        known.join("; ")
                    ));
                }
            }
        }
        self.active = active;
        Ok(())
    }

    fn no_adapter(&self, name: &str) -> String {
        let known: Vec<&str> = self.bottlenecks.iter().map(Adapter::name).collect();
        format!("there is no adapter `{name}`; there are: [{}]", known.join(", "))
    }

    /// Undoes the active invertible block, as a masked language model does before its decoder.
    pub(crate) fn invert(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        let first = self.active.as_ref().and_then(|active| self.adapter(active.first()));
        match first.and_then(|adapter| adapter.invertible.as_ref()) {
            Some(invertible) => invertible.inverse(hidden_states),
            None => hidden_states,
        }
    }

    /// The active composition.
    pub fn active(&self) -> Option<&Composition> {
        self.active.as_ref()
    }

    /// The adapter of a name.
    pub fn adapter(&self, name: &str) -> Option<&Adapter> {
        self.bottlenecks.iter().find(|adapter| adapter.name == name)
    }

    /// The fusion of a name: its adapters', joined by commas.
    pub fn fusion(&self, name: &str) -> Option<&Fusion> {
        self.fusions.iter().find(|fusion| fusion.name == name)
    }

    /// [`Hooks::sublayer_output`]; `observe` is shown the weights of each fusion, `[rows, adapters]`.
    pub(crate) fn sublayer_output(
        &self,
        site: SublayerSite,
        hidden_states: Tensor<2>,
        input: Tensor<2>,
        layer_norm: &LayerNorm,
        observe: &mut dyn FnMut(&str, Tensor<2>),
    ) -> Tensor<2> {
        let here = |name: &&str| self.module(name, site).is_some();
        let Some(active) = self.active.as_ref().filter(|active| active.names().iter().any(here))
        else {
            return add_layer_norm(hidden_states, input, layer_norm);
        };
        let place = Place { adapters: self, site, input: &input, layer_norm };
        let state = State { residual: input.clone(), hidden_states, up: None, last: None };
        let State { hidden_states, last, .. } = place.compose(active, state, observe);
        let last = last.expect("an adapter was applied");
        last.post_forward(hidden_states, input.clone(), layer_norm)
    }

    fn module(&self, name: &str, site: SublayerSite) -> Option<&BottleneckAdapter> {
        let adapter = self.adapter(name)?;
        match site {
            SublayerSite::Attention(layer) => adapter.layer[layer].attention.as_ref(),
            SublayerSite::FeedForward(layer) => adapter.layer[layer].output.as_ref(),
        }
    }
}

impl Adapter {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration.
    pub fn config(&self) -> &BottleneckConfig {
        &self.config
    }
}

impl Fusion {
    /// Its adapters' names, joined by commas.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration.
    pub fn config(&self) -> FusionConfig {
        self.config
    }

    /// Its modules, from the first layer up.
    pub fn modules(&self) -> impl Iterator<Item = &AdapterFusion> {
        self.layer.iter().flat_map(|layer| layer.attention.iter().chain(&layer.output))
    }
}

/// The end of a sub-layer where adapters are composed.
struct Place<'a> {
    adapters: &'a Adapters,
    site: SublayerSite,
    /// The sub-layer's input.
    input: &'a Tensor<2>,
    layer_norm: &'a LayerNorm,
}

/// What goes from one block of a composition to the next.
struct State<'a> {
    hidden_states: Tensor<2>,
    /// Added to an adapter's output.
    residual: Tensor<2>,
    /// The output of the last bottleneck, without residual.
    up: Option<Tensor<2>>,
    /// The last adapter applied.
    last: Option<&'a BottleneckAdapter>,
}

impl<'a> State<'a> {
    fn apply(self, adapter: &'a BottleneckAdapter) -> Self {
        let up = adapter.bottleneck(self.hidden_states);
        let hidden_states = adapter.finish(up.clone(), self.residual.clone());
        Self { hidden_states, up: Some(up), last: Some(adapter), ..self }
    }
}

impl<'a> Place<'a> {
    fn module(&self, name: &str) -> Option<&'a BottleneckAdapter> {
        self.adapters.module(name, self.site)
    }

    fn compose(
        &self,
        composition: &Composition,
        state: State<'a>,
        observe: &mut dyn FnMut(&str, Tensor<2>),
    ) -> State<'a> {
        match composition {
            Composition::Single(name) => match self.module(name) {
                Some(adapter) => self.enter(adapter, state).apply(adapter),
                None => state,
            },
            Composition::Stack(children) => {
                children.iter().fold(state, |state, child| self.compose(child, state, observe))
            }
            Composition::Fuse(children) => self.fuse(composition, children, state, observe),
        }
    }

    /// The adapter's input and residual from the state before it.
    fn enter(&self, adapter: &BottleneckAdapter, state: State<'a>) -> State<'a> {
        let (hidden_states, residual) =
            adapter.pre_forward(state.hidden_states, self.input, self.layer_norm);
        State { hidden_states, residual, ..state }
    }

    /// Attends over the children's outputs. The last child's configuration decides query, input and
    /// residual of all of them.
    fn fuse(
        &self,
        composition: &Composition,
        children: &[Composition],
        state: State<'a>,
        observe: &mut dyn FnMut(&str, Tensor<2>),
    ) -> State<'a> {
        let name = fusion_name(children);
        let fusion = self.adapters.fusion(&name).and_then(|fusion| match self.site {
            SublayerSite::Attention(layer) => fusion.layer[layer].attention.as_ref(),
            SublayerSite::FeedForward(layer) => fusion.layer[layer].output.as_ref(),
        });
        let (Some(last), Some(fusion)) = (self.module(composition.last()), fusion) else {
            return state;
        };
        let before = state.hidden_states.clone();
        let state = self.enter(last, state);
        let query =
            if fusion.config().query_before_ln { before } else { state.hidden_states.clone() };
        let ups: Vec<Tensor<2>> = children
            .iter()
            .filter_map(|child| {
                let state = State {
                    hidden_states: state.hidden_states.clone(),
                    residual: state.residual.clone(),
                    up: None,
                    last: None,
                };
                match child {
                    // An adapter in a `Fuse` takes the input of the fusion as it is.
                    Composition::Single(name) => {
                        self.module(name).map(|adapter| adapter.bottleneck(state.hidden_states))
                    }
                    _ => self.compose(child, state, observe).up,
                }
            })
            .collect();
        let (hidden_states, weights) = fusion.forward(query, &ups, state.residual.clone());
        observe(&name, weights);
        State { hidden_states, last: Some(last), ..state }
    }
}

impl Hooks for Adapters {
    fn linear(&self, site: LinearSite, linear: &Linear, input: Tensor<2>) -> Tensor<2> {
        match self.lora.as_ref().and_then(|lora| lora.at(site)) {
            Some(lora) => lora.forward(linear, &input),
            None => linear.forward(input),
        }
    }

    fn embedding(
        &self,
        site: EmbeddingSite,
        embedding: &Embedding,
        ids: Tensor<1, Int>,
        padding: Option<usize>,
    ) -> Tensor<2> {
        match self.lora.as_ref().and_then(|lora| lora.embedding_at(site)) {
            Some(lora) => lora.forward(embedding, ids, padding),
            None => embed(embedding.weight.val(), ids, padding),
        }
    }

    /// The invertible adapter of the first adapter of the active composition, if it owns one.
    fn embedding_output(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        let first = self.active.as_ref().and_then(|active| self.adapter(active.first()));
        match first.and_then(|adapter| adapter.invertible.as_ref()) {
            Some(invertible) => invertible.forward(hidden_states),
            None => hidden_states,
        }
    }

    fn sublayer_output(
        &self,
        site: SublayerSite,
        hidden_states: Tensor<2>,
        residual: Tensor<2>,
        layer_norm: &LayerNorm,
    ) -> Tensor<2> {
        self.sublayer_output(site, hidden_states, residual, layer_norm, &mut |_, _| {})
    }
}
