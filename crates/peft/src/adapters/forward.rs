use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor};
use nsmc_bert::{EmbeddingSite, Hooks, LinearSite, SublayerSite};
use nsmc_ops::{LayerNorm, gather};

use crate::composition::fusion_name;
use crate::{Adapters, BottleneckAdapter, Composition, NiceCouplingBlock};

impl Hooks for Adapters {
    fn linear(&self, site: LinearSite, linear: &Linear, input: Tensor<2>) -> Tensor<2> {
        match self.lora.as_ref().and_then(|lora| lora.at(site)) {
            Some(lora) => lora.forward(linear, &input),
            None => nsmc_ops::linear(linear, input),
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
            None => gather(embedding.weight.val(), ids, padding),
        }
    }

    fn embedding_output(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        match self.active_invertible() {
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

impl Adapters {
    /// Undoes the active invertible block, as a masked language model does before its decoder.
    pub(crate) fn invert(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        match self.active_invertible() {
            Some(invertible) => invertible.inverse(hidden_states),
            None => hidden_states,
        }
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
            return layer_norm.forward_sum(hidden_states, input);
        };
        let place = Place { adapters: self, site, input: &input, layer_norm };
        let state = State { residual: input.clone(), hidden_states, up: None, last: None };
        let State { hidden_states, last, .. } = place.compose(active, state, observe);
        let last = last.expect("an adapter is here, and so is the last of each `Fuse`");
        last.post_forward(hidden_states, input.clone(), layer_norm)
    }

    /// The invertible adapter of the first adapter of the active composition, if it owns one.
    fn active_invertible(&self) -> Option<&NiceCouplingBlock> {
        self.adapter(self.active.as_ref()?.first())?.invertible.as_ref()
    }

    pub(super) fn module(&self, name: &str, site: SublayerSite) -> Option<&BottleneckAdapter> {
        let adapter = self.adapter(name)?;
        match site {
            SublayerSite::Attention(layer) => adapter.layer[layer].attention.as_ref(),
            SublayerSite::FeedForward(layer) => adapter.layer[layer].output.as_ref(),
        }
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
        let last = self.module(composition.last());
        // `set_active` and `add_fusion` refuse anything else.
        let last = last.expect("the last of a `Fuse` is wherever another adapter is");
        let fusion = fusion.expect("a fusion layer is wherever its last adapter is");
        let before = state.hidden_states.clone();
        let state = self.enter(last, state);
        let query =
            if fusion.config().query_before_ln { before } else { state.hidden_states.clone() };
        let ups: Vec<Option<Tensor<2>>> = children
            .iter()
            .map(|child| {
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
        let here: Vec<bool> = ups.iter().map(Option::is_some).collect();
        let ups: Vec<Tensor<2>> = ups.into_iter().flatten().collect();
        let (hidden_states, weights) = fusion.forward(query, &ups, state.residual.clone());
        observe(&name, of_every_child(weights, &here));
        State { hidden_states, last: Some(last), ..state }
    }
}

/// The weights of the children that are `here` with a column of zeros for each other:
/// `[rows, here.len()]`.
fn of_every_child(weights: Tensor<2>, here: &[bool]) -> Tensor<2> {
    if here.iter().all(|&here| here) {
        return weights;
    }
    let mut of_those_here = weights.clone().split(1, 1).into_iter();
    let nothing = weights.narrow(1, 0, 1).zeros_like();
    let columns = here.iter().map(|&here| match here {
        true => of_those_here.next().expect("there is a weight for each child that is here"),
        false => nothing.clone(),
    });
    Tensor::cat(columns.collect(), 1)
}
