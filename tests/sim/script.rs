//! What happened in the lively part of a simulation, beat by beat, so that it
//! can happen again with some of the beats left out.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use crate::{
    link::LinkId,
    world::{Action, World},
};

/// Something that can happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    World(Action),
    Act(usize),
    Read(usize),
    Closed(usize),
    /// Something has come on a connection that the client has taken over from.
    ReadDisplaced(usize),
    /// Nothing else can: time passes.
    Wait,
    /// The server ends in an orderly way and begins again.
    ComeBack,
}

/// One event and the seed of all that it decides by chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    pub(crate) seed: u64,
    event: Event,
    /// The connection that it is about, by client: ids depend on what was left out.
    owner: Option<(usize, usize)>,
}

impl Beat {
    pub(crate) fn new(world: &World, seed: u64, event: Event) -> Self {
        let owner = match event {
            Event::World(action) => action.link().map(|link| world.links[link].owner),
            _ => None,
        };
        Self { seed, event, owner }
    }

    /// The event as this world names it; `None` if there is no such connection.
    pub(crate) fn event(&self, world: &World) -> Option<Event> {
        let Some(owner) = self.owner else { return Some(self.event) };
        let link = world.links.iter().rposition(|link| link.owner == owner)?;
        match self.event {
            Event::World(action) => Some(Event::World(action.with_link(link))),
            other => Some(other),
        }
    }
}

impl Action {
    fn link(self) -> Option<LinkId> {
        match self {
            Self::Receive(link) | Self::Hangup(link) | Self::Take(link) | Self::Send(link) => {
                Some(link)
            }
            Self::Turn(_)
            | Self::Advance(_)
            | Self::Put(..)
            | Self::Get(..)
            | Self::Sync(_)
            | Self::Work(_)
            | Self::Heal(_)
            | Self::Start => None,
        }
    }

    fn with_link(self, link: LinkId) -> Self {
        match self {
            Self::Receive(_) => Self::Receive(link),
            Self::Hangup(_) => Self::Hangup(link),
            Self::Take(_) => Self::Take(link),
            Self::Send(_) => Self::Send(link),
            other => other,
        }
    }
}

/// What a run is made of.
#[derive(Clone, Default)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    /// Clients that take no part.
    pub(crate) absent: BTreeSet<usize>,
    /// The beats to play; without them, the seed decides.
    pub(crate) script: Option<Rc<Vec<Beat>>>,
    /// The world has a fault that the rules must notice.
    pub(crate) loses_batches: bool,
}

impl Case {
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// Where a run notes its beats; it is there after a panic, too.
pub(crate) type Recording = Rc<RefCell<Vec<Beat>>>;
