//! Back to how the workspace was.
//!
//! A step swapped objects between slots and workspace. Each entry after it did steps or took
//! them back, so the way from the present to an earlier state is what is left of all that when
//! steps that were done and taken back cancel out. No step is on it twice, and its objects are
//! in its slots: an undo swaps them again, newest first, as one step of its own.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use protocol::ids::Digest;
use protocol::runner::{Changes, EntryId, Fate};
use protocol::workspace::{Diff, Origin, Preview, UndoTo};
use rustix::time::ClockId;

use crate::apply::{Slots, now};
use crate::clean::Budget;
use crate::compare::{Instead, Place, Side, Visit, compare};
use crate::conflict::{Traces, folder_of, path_of};
use crate::findings::{Findings, Watch};
use crate::fsys::{self, Meta};
use crate::journal::{Body, Look, Object, Op, Part, Touch, Way};
use crate::name::{Name, shown};
use crate::stop::Stop;
use crate::store::{Ready, Store};

/// What an undo would do.
struct Plan {
    first: u64,
    body: Body,
    parts: Vec<Part>,
    /// What the workspace then has at which paths.
    instead: Instead,
    /// The folders that get other permissions, with what they have at present.
    modes: BTreeMap<Vec<Name>, (Meta, u32)>,
}

impl Store {
    /// What an undo would change.
    pub(crate) fn preview(&self, to: &UndoTo, diff: Diff) -> Result<Preview, Stop> {
        let plan = self.plan_undo(to)?;
        let changed = self.changed_since(plan.first)?;
        let mut findings = Findings::new(Watch::If(&changed));
        if diff == Diff::Unified {
            findings = findings.with_texts();
        }
        self.find(&plan, &mut findings)?;
        let digest = findings.digest();
        let changed_since = findings.take_conflicts();
        let diff = findings.take_diff();
        let changes = findings.into_changes(Fate::Unchanged);
        Ok(Preview {
            digest,
            entries: self.shown_from(plan.first),
            changes: changes.list,
            more: changes.more,
            changed_since,
            diff,
        })
    }

    /// Undoes what was shown.
    pub(crate) fn undo_held(
        &mut self,
        to: &UndoTo,
        digest: Digest,
    ) -> Result<(EntryId, Changes), Stop> {
        let plan = self.plan_undo(to)?;
        let mut findings = Findings::new(Watch::Nothing);
        self.find(&plan, &mut findings)?;
        if findings.digest() != digest {
            return Err(Stop::refuse(
                "the workspace is not as it was when this was shown",
                "look at what it would change once more",
            ));
        }
        if plan.body.is_empty() {
            return Err(Stop::refuse(
                "there is nothing to undo: the workspace is as it was then",
                "name an earlier turn",
            ));
        }
        let layer = self.make_layer()?;
        let ready = Ready {
            origin: Origin::Undo {
                entry: EntryId(plan.first),
            },
            parts: plan.parts,
            changes: findings.count(),
            settled: true,
            body: plan.body,
        };
        let entry = self.commit(layer.number, &layer.folder, ready);
        self.drop_layer(layer.number);
        let entry = entry?;
        Ok((entry, findings.into_changes(Fate::Kept { entry })))
    }

    /// The oldest entry that goes.
    fn first(&self, to: &UndoTo) -> Result<u64, Stop> {
        let nothing = || {
            Stop::refuse(
                "the history holds no such step",
                "look at `bulkhead undo` for what can be undone",
            )
        };
        let of_turn = |origin: &Origin, wanted: &(_, _)| match origin {
            Origin::Call { call } => (&call.session, call.turn) == *wanted,
            Origin::Run | Origin::Undo { .. } => false,
        };
        match to {
            UndoTo::Entry { entry } => self
                .entries
                .contains_key(&entry.0)
                .then_some(entry.0)
                .ok_or_else(nothing),
            UndoTo::Turn { session, turn } => {
                let wanted = (session, *turn);
                let mut found = self
                    .entries
                    .iter()
                    .filter(|(_, header)| of_turn(&header.origin, &wanted));
                found.next().map(|(entry, _)| *entry).ok_or_else(nothing)
            }
            UndoTo::Newest => {
                let (newest, header) = self.entries.last_key_value().ok_or_else(nothing)?;
                match &header.origin {
                    Origin::Call { call } => {
                        let wanted = (&call.session, call.turn);
                        let same = self.entries.iter().rev();
                        let same = same.take_while(|(_, header)| of_turn(&header.origin, &wanted));
                        Ok(same.last().map_or(*newest, |(entry, _)| *entry))
                    }
                    Origin::Run | Origin::Undo { .. } => Ok(*newest),
                }
            }
        }
    }

    /// The steps to do or take back, in order, each with the newest entry that did either.
    fn way_back(&self, first: u64) -> Vec<(u64, Way, u64)> {
        let mut way: Vec<(u64, Way, u64)> = Vec::new();
        let mut holders = HashMap::new();
        for (entry, header) in self.entries.range(first..).rev() {
            for part in header.parts.iter().rev() {
                let holder = *holders.entry(part.step).or_insert(*entry);
                match way.last() {
                    Some((step, last, _)) if *step == part.step && *last == part.way => {
                        way.pop();
                    }
                    _ => way.push((part.step, part.way.other(), holder)),
                }
            }
        }
        way
    }

    fn plan_undo(&self, to: &UndoTo) -> Result<Plan, Stop> {
        let first = self.first(to)?;
        let mut planner = Planner {
            store: self,
            slots: self.slots(),
            plan: Plan {
                first,
                body: Body::default(),
                parts: Vec::new(),
                instead: Instead::new(),
                modes: BTreeMap::new(),
            },
            looks: HashMap::new(),
        };
        let mut bodies: HashMap<u64, Rc<Body>> = HashMap::new();
        for (step, way, holder) in self.way_back(first) {
            let body = match bodies.get(&holder) {
                Some(body) => Rc::clone(body),
                None => {
                    let body = Rc::new(self.body(holder)?);
                    bodies.insert(holder, Rc::clone(&body));
                    body
                }
            };
            planner.part(step, way, &body)?;
        }
        Ok(planner.plan)
    }

    /// Compares the present with what it will be, path by path.
    fn find(&self, plan: &Plan, findings: &mut Findings<'_>) -> Result<(), Stop> {
        findings.note(&plan.first.to_le_bytes());
        findings.note(&self.newest().to_le_bytes());
        let mut paths: Vec<&Vec<Name>> = plan.instead.keys().chain(plan.modes.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        let mut below: Option<&Vec<Name>> = None;
        for path in paths {
            findings.note(shown(path).as_bytes());
            if below.is_some_and(|above| path.starts_with(above)) {
                continue;
            }
            if let Some((meta, mode)) = plan.modes.get(path) {
                findings.note_meta(Some(meta));
                findings.note(&mode.to_le_bytes());
                findings.mode(path, meta, *mode);
            }
            if let Some(new) = plan.instead.get(path) {
                below = Some(path);
                let old = self.place(path).ok();
                compare(
                    old.as_ref(),
                    new.as_ref(),
                    &mut path.clone(),
                    &plan.instead,
                    findings,
                )?;
            }
        }
        Ok(())
    }

    /// Where a path of the workspace is at present.
    fn place(&self, path: &[Name]) -> Result<Place, Stop> {
        let (name, above) = path.split_last().ok_or_else(|| {
            Stop::refuse(
                "a journal names the workspace itself",
                "the history folder is damaged",
            )
        })?;
        let dir = fsys::folder_below(&self.workspace, above).map_err(|error| {
            let mut stop = Stop::at(format!("the folder {}", shown(above)))(error);
            if let Stop::Refused { fix, .. } = &mut stop {
                *fix = "make it a folder again; what is undone goes into it".to_owned();
            }
            stop
        })?;
        Ok(Place {
            dir: Rc::new(dir),
            name: name.clone(),
        })
    }

    /// Tells what was changed by other means than the entries from there on.
    fn changed_since(&self, first: u64) -> Result<impl Fn(&[Name], &Meta) -> bool + use<>, Stop> {
        let mut all = Vec::new();
        for entry in self.entries.range(first..).map(|(entry, _)| *entry) {
            all.extend(Traces::of(self, entry, i64::MIN)?);
        }
        let to = now(ClockId::Realtime);
        Ok(move |path: &[Name], meta: &Meta| {
            let touches = |traces: &&Traces| {
                traces.folders.contains(path)
                    || (1..=path.len()).any(|len| traces.objects.contains_key(&path[..len]))
            };
            let Some(last) = all.iter().rev().find(touches) else {
                return false;
            };
            let same = match last.objects.get(path) {
                Some(Some((ino, ctime, size))) => {
                    *ino == meta.ino
                        && (meta.is_folder() || (*ctime, *size) == (meta.ctime, meta.size))
                }
                Some(None) => false,
                None => true,
            };
            !same || meta.ctime > last.applied && meta.ctime <= to.saturating_add(1_000_000_000)
        })
    }
}

struct Planner<'a> {
    store: &'a Store,
    slots: Slots<'a>,
    plan: Plan,
    /// Folders as they are by then.
    looks: HashMap<Vec<Name>, Look>,
}

impl Planner<'_> {
    fn part(&mut self, step: u64, way: Way, body: &Body) -> Result<(), Stop> {
        let mut bytes = 0_u64;
        for op in body.ops.iter().rev().filter(|op| op.step == step) {
            bytes = bytes.saturating_add(self.op(op, &path_of(body, op)?)?);
        }
        for touch in body.touches.iter().rev().filter(|touch| touch.step == step) {
            self.touch(touch, folder_of(body, touch.folder)?)?;
        }
        self.plan.body.steps.push(step);
        self.plan.parts.push(Part { step, way, bytes });
        Ok(())
    }

    /// The bytes that it brings out of the workspace.
    fn op(&mut self, op: &Op, path: &[Name]) -> Result<u64, Stop> {
        let slots = self.slots.of(op.step).map_err(Stop::at("the history"))?;
        let new = Place::new(&slots, &Name::number(op.slot));
        let incoming = new.look().map_err(Stop::at("the history"))?;
        let old = self.by_then(path)?;
        let outgoing = match &old {
            Some(place) => place.look().map_err(Stop::at(shown(path)))?,
            None => None,
        };
        if incoming.is_none() && outgoing.is_none() {
            return Ok(0);
        }
        let above = &path[..path.len() - 1];
        let folder = self.plan.body.folders.intern(above);
        self.plan.body.ops.push(Op {
            step: op.step,
            slot: op.slot,
            folder,
            name: op.name.clone(),
            incoming: incoming.as_ref().map(Object::from),
            outgoing: outgoing.as_ref().map(Object::from),
        });
        let bytes = match (&old, outgoing) {
            (Some(place), Some(_)) => size_of(place, path, &self.plan.instead)?,
            (_, _) => 0,
        };
        self.plan.instead.retain_outside(path);
        self.plan
            .instead
            .insert(path.to_vec(), incoming.map(|_| new));
        Ok(bytes)
    }

    /// Where the object of a path is, once the operations so far are done.
    fn by_then(&self, path: &[Name]) -> Result<Option<Place>, Stop> {
        for len in (1..=path.len()).rev() {
            let Some(place) = self.plan.instead.get(&path[..len]) else {
                continue;
            };
            let Some(place) = place else { return Ok(None) };
            let Some((name, between)) = path[len..].split_last() else {
                return Ok(Some(place.clone()));
            };
            let mut names = vec![place.name.clone()];
            names.extend_from_slice(between);
            let dir = fsys::folder_below(place.fd(), &names).map_err(Stop::at(shown(path)))?;
            return Ok(Some(Place {
                dir: Rc::new(dir),
                name: name.clone(),
            }));
        }
        Ok(Some(self.store.place(path)?))
    }

    fn touch(&mut self, touch: &Touch, path: Vec<Name>) -> Result<(), Stop> {
        let meta = if path.is_empty() {
            Some(fsys::stat_of(&self.store.workspace).map_err(Stop::at("the workspace"))?)
        } else {
            match self.by_then(&path) {
                Ok(Some(place)) => place.look().map_err(Stop::at(shown(&path)))?,
                Ok(None) | Err(_) => None,
            }
        };
        let Some(meta) = meta.filter(Meta::is_folder) else {
            return Ok(());
        };
        let before = *self.looks.entry(path.clone()).or_insert(Look {
            mode: meta.permissions(),
            mtime: meta.mtime,
        });
        let mode = match touch.mode {
            Some(_) => Some(touch.before.mode),
            None => (before.mode & 0o300 != 0o300).then_some(before.mode),
        };
        let folder = self.plan.body.folders.intern(&path);
        self.plan.body.touches.push(Touch {
            step: touch.step,
            folder,
            before,
            mode,
            mtime: Some(touch.before.mtime),
        });
        let look = Look {
            mode: mode.unwrap_or(before.mode),
            mtime: touch.before.mtime,
        };
        if look.mode != meta.permissions() {
            self.plan.modes.insert(path.clone(), (meta, look.mode));
        } else {
            self.plan.modes.remove(&path);
        }
        self.looks.insert(path, look);
        Ok(())
    }
}

trait RetainOutside {
    fn retain_outside(&mut self, path: &[Name]);
}

impl RetainOutside for Instead {
    /// Forgets what is at and below a path; the cost is what is forgotten.
    fn retain_outside(&mut self, path: &[Name]) {
        let below: Vec<Vec<Name>> = self
            .range(path.to_vec()..)
            .map(|(at, _)| at)
            .take_while(|at| at.starts_with(path))
            .cloned()
            .collect();
        for at in below {
            self.remove(&at);
        }
    }
}

/// Bytes on the disk of an object and all below it.
fn size_of(place: &Place, path: &[Name], instead: &Instead) -> Result<u64, Stop> {
    let mut sum = Sum(0, Budget::default());
    compare(None, Some(place), &mut path.to_vec(), instead, &mut sum)?;
    Ok(sum.0)
}

struct Sum(u64, Budget);

impl Visit for Sum {
    fn pair(
        &mut self,
        _: &[Name],
        _: Option<&Side<'_>>,
        new: Option<&Side<'_>>,
    ) -> Result<(), Stop> {
        self.0 += new.map_or(0, |side| side.meta.disk);
        Ok(())
    }

    fn budget(&mut self) -> &mut Budget {
        &mut self.1
    }
}
