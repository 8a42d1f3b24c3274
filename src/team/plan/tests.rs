//! The rules of delivery, held against what they promise: once for every small situation there is, and in long random
//! lives of one recipient, with attempts that fail, sessions that change meanwhile, and servers that die.

use super::*;
use gooselake_harness::rng::Rng;

const POLICIES: &[Policy] = Policy::ALL;

fn letter(delivery_key: i64, rank: i64, policy: Policy) -> Waiting {
    Waiting {
        delivery_key,
        status: DeliveryStatus::Pending,
        rank,
        policy,
        deferred_reason: None,
        next_attempt_at: None,
        is_steer_refused: false,
        bytes: 10,
    }
}

fn open() -> Recipient {
    Recipient {
        state: "open".to_owned(),
        is_live: true,
        is_gated: false,
        capabilities: None,
        active: None,
        queued: 0,
        has_queued_mail: false,
    }
}

/// What must be true of any plan. `queue` is in order.
fn check(recipient: &Recipient, can_steer: bool, queue: &[Waiting], plan: &Plan) {
    let told = || format!("{recipient:?} {can_steer} {queue:?} -> {plan:?}");
    let Plan::Inject { count, way } = plan else { return };
    assert!((1..=queue.len()).contains(count), "{}", told());
    let carried = &queue[..*count];
    let is_lonely = |waiting: &&Waiting| waiting.policy == Policy::StartNewTurnOnly;
    let lonely = carried.iter().filter(is_lonely).count();
    assert!(lonely == 0 || carried.len() == 1, "a turn of its own is shared: {}", told());
    let may_act = |waiting: &&Waiting, active: &ActiveTurn| {
        waiting.policy == Policy::ImmediateInterrupt
            || waiting.policy == Policy::InterruptAfterToolBoundary && !active.has_tool
    };
    match (way, &recipient.active) {
        (Way::NewTurn, None) => assert_eq!(recipient.queued, 0, "{}", told()),
        (Way::Interrupt { turn_id, at_tool_boundary }, Some(active)) => {
            assert_eq!(*turn_id, active.turn_id);
            assert!(!(*at_tool_boundary && active.has_tool), "{}", told());
            let is_allowed = queue.iter().any(|waiting| {
                let is_allowed =
                    active.mail_rank.is_none_or(|rank| active.is_told && waiting.rank < rank);
                is_allowed && may_act(&waiting, active)
            });
            assert!(is_allowed, "nothing may end this turn: {}", told());
        }
        (Way::Steer { turn_id, .. }, Some(active)) => {
            assert_eq!(*turn_id, active.turn_id);
            let is_open_to_more = active.is_told && !active.is_waiting_for_approval;
            assert!(can_steer && lonely == 0 && is_open_to_more, "{}", told());
            assert!(queue.iter().any(|waiting| may_act(&waiting, active)), "{}", told());
            assert!(!carried.iter().any(|waiting| waiting.is_steer_refused), "{}", told());
        }
        _ => panic!("a way that is not there: {}", told()),
    }
}

#[test]
fn every_small_situation_keeps_the_promises() {
    let mut turns = vec![None];
    for bits in 0..16 {
        for mail_rank in [None, Some(0), Some(1), Some(2)] {
            turns.push(Some(ActiveTurn {
                turn_id: "turn".to_owned(),
                is_waiting_for_approval: bits & 1 > 0,
                is_interrupted: bits & 2 > 0,
                has_tool: bits & 4 > 0,
                is_told: bits & 8 > 0,
                mail_rank,
            }));
        }
    }
    let mut letters = Vec::new();
    for policy in POLICIES {
        for rank in 0..3 {
            letters.push((*policy, rank));
        }
    }
    let mut seen = 0;
    for active in turns {
        for (queued, has_queued_mail) in [(0, false), (1, false), (1, true)] {
            let recipient = Recipient { active: active.clone(), queued, has_queued_mail, ..open() };
            for first in &letters {
                for second in letters.iter().filter(|second| second.1 >= first.1) {
                    let queue = [letter(1, first.1, first.0), letter(2, second.1, second.0)];
                    for can_steer in [false, true] {
                        for length in 1..=2 {
                            let queue = &queue[..length];
                            let plan = plan(Some(&recipient), can_steer, queue, 0);
                            check(&recipient, can_steer, queue, &plan);
                            reason(&recipient, &queue[0], 0);
                            seen += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(seen, 65 * 3 * 96 * 4);
}

#[test]
fn the_table_of_policies_is_what_happens() {
    let turn = |mail_rank, has_tool| {
        let (is_waiting_for_approval, is_interrupted) = (false, false);
        let (turn_id, is_told) = ("turn".to_owned(), true);
        Some(ActiveTurn {
            turn_id,
            is_waiting_for_approval,
            is_interrupted,
            is_told,
            mail_rank,
            has_tool,
        })
    };
    let cases = [
        (Policy::NonInterrupting, None, false, "waits", "waits"),
        (Policy::StartNewTurnOnly, None, false, "waits", "waits"),
        (Policy::InterruptAfterToolBoundary, None, true, "waits", "waits"),
        (Policy::InterruptAfterToolBoundary, None, false, "ends it", "joins"),
        (Policy::ImmediateInterrupt, None, true, "ends it", "joins"),
        (Policy::ImmediateInterrupt, Some(1), true, "waits", "joins"),
        (Policy::ImmediateInterrupt, Some(2), true, "ends it", "joins"),
        (Policy::NonInterrupting, Some(2), false, "waits", "waits"),
    ];
    for (policy, mail_rank, has_tool, alone, steered) in cases {
        let recipient = Recipient { active: turn(mail_rank, has_tool), ..open() };
        for (can_steer, expected) in [(false, alone), (true, steered)] {
            let told = match plan(Some(&recipient), can_steer, &[letter(1, 1, policy)], 0) {
                Plan::Wait { .. } => "waits",
                Plan::Inject { way: Way::Steer { .. }, .. } => "joins",
                Plan::Inject { .. } => "ends it",
                Plan::Fail { .. } => "fails",
            };
            assert_eq!(told, expected, "{policy:?} {mail_rank:?} {has_tool} {can_steer}");
        }
    }
}

#[test]
fn a_turn_has_a_bound() {
    let mut queue: Vec<Waiting> =
        (0..80).map(|key| letter(key, 1, Policy::NonInterrupting)).collect();
    let count = |queue: &[Waiting]| match plan(Some(&open()), false, queue, 0) {
        Plan::Inject { count, .. } => count,
        other => panic!("{other:?}"),
    };
    assert_eq!(count(&queue), limits::MAIL_TURN);
    queue[0].bytes = limits::MAIL_TURN_BYTES * 2;
    assert_eq!(count(&queue), 1, "one that is larger than the bound goes alone");
    queue[0].bytes = limits::MAIL_TURN_BYTES - 15;
    assert_eq!(count(&queue), 2);
}

#[test]
fn what_waits_for_its_next_attempt_holds_up_what_is_behind() {
    let mut queue = [letter(1, 1, Policy::NonInterrupting), letter(2, 1, Policy::NonInterrupting)];
    queue[0].next_attempt_at = Some(500);
    assert_eq!(plan(Some(&open()), false, &queue, 100), Plan::Wait { until: Some(500) });
    let high = [letter(3, 0, Policy::NonInterrupting), queue[0].clone(), queue[1].clone()];
    assert_eq!(
        plan(Some(&open()), false, &high, 100),
        Plan::Inject { count: 1, way: Way::NewTurn }
    );
    assert_eq!(
        plan(Some(&open()), false, &queue, 500),
        Plan::Inject { count: 2, way: Way::NewTurn }
    );
}

/// A turn of the world below.
#[derive(Clone, Debug)]
struct Turn {
    active: ActiveTurn,
    carries: Vec<i64>,
}

/// One recipient with its session, as src/session treats mail: what is not as planned changes nothing.
struct World {
    rng: Rng,
    now_ms: i64,
    state: &'static str,
    can_steer: bool,
    active: Option<Turn>,
    queued: Vec<Turn>,
    waiting: Vec<Waiting>,
    written: i64,
    /// Rank and key, in the order in which they came into a turn.
    arrived: Vec<(i64, i64)>,
    /// What joined this turn, and the agent has not said yet whether it has heard.
    unanswered: Option<(String, Vec<Waiting>)>,
    refused: usize,
    failed: usize,
    turns: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let (state, can_steer) = (*rng.pick(&["open", "open", "starting"]), rng.chance(30));
        World {
            rng,
            now_ms: 0,
            state,
            can_steer,
            active: None,
            queued: Vec::new(),
            waiting: Vec::new(),
            written: 0,
            arrived: Vec::new(),
            unanswered: None,
            refused: 0,
            failed: 0,
            turns: 0,
        }
    }

    fn recipient(&self) -> Recipient {
        Recipient {
            state: self.state.to_owned(),
            active: self.active.as_ref().map(|turn| turn.active.clone()),
            queued: self.queued.len(),
            has_queued_mail: self.queued.iter().any(|turn| !turn.carries.is_empty()),
            ..open()
        }
    }

    fn turn(&mut self, carries: Vec<Waiting>) -> Turn {
        self.turns += 1;
        let active = ActiveTurn {
            turn_id: format!("turn-{}", self.turns),
            is_waiting_for_approval: false,
            is_interrupted: false,
            is_told: false,
            mail_rank: carries.iter().map(|waiting| waiting.rank).min(),
            has_tool: false,
        };
        Turn { active, carries: carries.iter().map(|waiting| waiting.delivery_key).collect() }
    }

    /// Something happens that mail has no part in.
    fn happen(&mut self) {
        match self.rng.below(16) {
            0..=3 if self.written < 40 => {
                self.written += 1;
                let policy = *self.rng.pick(POLICIES);
                let rank = self.rng.below(3).cast_signed();
                self.waiting.push(letter(self.written, rank, policy));
                self.waiting.sort_by_key(|waiting| (waiting.rank, waiting.delivery_key));
            }
            4 if self.state == "open" => {
                let turn = self.turn(Vec::new());
                match self.active {
                    Some(_) => self.queued.push(turn),
                    None => self.active = Some(turn),
                }
            }
            5 => self.with_turn(|turn, _| turn.has_tool = true),
            6 => self.with_turn(|turn, _| turn.has_tool = false),
            7 => self.with_turn(|turn, is| turn.is_waiting_for_approval = is),
            8 | 9 => self.end_turn(),
            10 => self.now_ms += 400,
            11 => self.with_turn(|turn, _| turn.is_told = true),
            12 | 13 => self.answer(),
            14 => self.agent_dies(),
            _ if self.state == "starting" => self.state = "open",
            _ => {}
        }
    }

    /// The agent says of what joined a turn that it has heard it, or that it has not.
    fn answer(&mut self) {
        let Some((turn_id, steered)) = self.unanswered.take() else { return };
        if !self.rng.chance(50) {
            self.come_back(&turn_id, &steered);
        }
    }

    /// Also when it has left them unanswered for as long as it may: its turn fails with what joined that, and what was
    /// to join a turn before it comes back.
    fn agent_dies(&mut self) {
        let steered = self.unanswered.take();
        let failing = self.active.as_ref().filter(|turn| turn.active.is_told);
        let failing = failing.map(|turn| turn.active.turn_id.clone());
        if failing.is_some() {
            self.end_turn();
        }
        if let Some((turn_id, steered)) = steered.filter(|it| Some(&it.0) != failing.as_ref()) {
            self.come_back(&turn_id, &steered);
        }
    }

    fn come_back(&mut self, turn_id: &str, steered: &[Waiting]) {
        self.refused += steered.len();
        let is_back = |key: i64| steered.iter().any(|waiting| waiting.delivery_key == key);
        self.arrived.retain(|it| !is_back(it.1));
        if let Some(turn) = self.active.as_mut().filter(|turn| turn.active.turn_id == turn_id) {
            turn.carries.retain(|key| !is_back(*key));
        }
        let back = steered.iter().map(|it| Waiting { is_steer_refused: true, ..it.clone() });
        self.waiting.extend(back);
        self.waiting.sort_by_key(|waiting| (waiting.rank, waiting.delivery_key));
    }

    fn with_turn(&mut self, change: impl FnOnce(&mut ActiveTurn, bool)) {
        let is = self.rng.chance(50);
        if let Some(turn) = &mut self.active {
            change(&mut turn.active, is);
        }
    }

    /// The turn ends, by itself or since its agent died, and the next of the queue begins: mail first.
    fn end_turn(&mut self) {
        self.active = None;
        if !self.queued.is_empty() {
            let mail = self.queued.iter().position(|turn| !turn.carries.is_empty());
            self.active = Some(self.queued.remove(mail.unwrap_or(0)));
        }
    }

    /// The dispatcher looks until there is nothing to do; what may go wrong goes wrong sometimes.
    fn dispatch(&mut self) {
        for _ in 0..200 {
            if self.waiting.is_empty() {
                return;
            }
            let recipient = self.recipient();
            let plan = plan(Some(&recipient), self.can_steer, &self.waiting, self.now_ms);
            check(&recipient, self.can_steer, &self.waiting, &plan);
            match plan {
                Plan::Wait { .. } => return,
                Plan::Fail { .. } => {
                    self.failed += self.waiting.len();
                    self.waiting.clear();
                    return;
                }
                Plan::Inject { count, way } => self.attempt(count, way),
            }
        }
        panic!("the dispatcher does not come to rest");
    }

    fn attempt(&mut self, count: usize, way: Way) {
        let claimed: Vec<Waiting> = self.waiting[..count].to_vec();
        let is_claimed =
            |waiting: &Waiting| claimed.iter().any(|it| it.delivery_key == waiting.delivery_key);
        match self.rng.below(10) {
            // The session changes, or new mail comes, between the plan and the attempt.
            0 => self.happen(),
            // The server dies while it is under way: nothing has arrived.
            1 => return,
            2 => {
                let next_attempt_at = Some(self.now_ms + 300);
                let failed = self.waiting.iter_mut().filter(|waiting| is_claimed(waiting));
                failed.for_each(|waiting| waiting.next_attempt_at = next_attempt_at);
                return;
            }
            _ => {}
        }
        let is_held = self.unanswered.as_ref().is_some_and(
            |(joined, _)| !matches!(&way, Way::Steer { turn_id, .. } if turn_id == joined),
        );
        if is_held {
            self.answer();
            return;
        }
        let place = |waiting: &Waiting| (waiting.rank, waiting.delivery_key);
        let last = claimed.last().map(place);
        if self.waiting.iter().any(|it| !is_claimed(it) && Some(place(it)) < last) {
            return;
        }
        let is_as_planned = match (&way, &self.active) {
            (Way::NewTurn, None) => self.queued.is_empty() && self.state == "open",
            (
                Way::Interrupt { turn_id, at_tool_boundary }
                | Way::Steer { turn_id, at_tool_boundary },
                Some(turn),
            ) => turn.active.turn_id == *turn_id && !(*at_tool_boundary && turn.active.has_tool),
            _ => false,
        };
        if !is_as_planned {
            return;
        }
        self.waiting.retain(|waiting| !is_claimed(waiting));
        self.arrived.extend(claimed.iter().map(|it| (it.rank, it.delivery_key)));
        let keys = claimed.iter().map(|waiting| waiting.delivery_key);
        match (way, &mut self.active) {
            (Way::Steer { turn_id, .. }, Some(turn)) => {
                turn.carries.extend(keys);
                self.unanswered.get_or_insert((turn_id, Vec::new())).1.extend(claimed);
            }
            (Way::Interrupt { .. }, Some(turn)) => {
                turn.active.is_interrupted = true;
                let next = self.turn(claimed);
                self.queued.push(next);
            }
            _ => self.active = Some(self.turn(claimed)),
        }
    }
}

#[test]
fn in_any_life_every_letter_arrives_once_and_none_is_stuck() {
    let mut seeds = Rng::from_environment();
    let (mut arrived, mut refused) = (0, 0);
    for _ in 0..300 {
        let seed = seeds.next_u64();
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.happen();
            world.dispatch();
        }
        // Nothing new comes; what runs ends.
        let is_closed = world.rng.chance(20);
        world.state = if is_closed { "closed" } else { "open" };
        for _ in 0..200 {
            world.end_turn();
            world.answer();
            world.now_ms += 400;
            world.dispatch();
        }
        assert!(world.waiting.is_empty(), "seed {seed}: {:?} is stuck", world.waiting);
        for rank in 0..3 {
            let of_rank = world.arrived.iter().filter(|it| it.0 == rank).map(|it| it.1);
            let is_in_order = of_rank.is_sorted_by(|before, behind| before < behind);
            assert!(is_in_order, "seed {seed}: twice, or out of order: {:?}", world.arrived);
        }
        let written = usize::try_from(world.written).unwrap();
        assert_eq!(world.arrived.len() + world.failed, written, "seed {seed}: something is lost");
        assert!(is_closed || world.failed == 0, "seed {seed}");
        arrived += world.arrived.len();
        refused += world.refused;
    }
    assert!(arrived > 5000, "{arrived} letters say little");
    assert!(refused > 50, "{refused} refusals say little");
}
