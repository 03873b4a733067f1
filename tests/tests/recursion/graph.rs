//! Who calls whom, read off a disassembly.

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};

/// Functions that can come back to themselves by direct calls and jumps, as sets of names that can all reach each other.
/// Functions that are no Rust are left out, and what they call.
pub(crate) fn cycles(disassembly: &str) -> Vec<BTreeSet<&str>> {
    let mut graph = DiGraph::<&str, ()>::new();
    // Of several functions with one name each has an address.
    let mut nodes: BTreeMap<&str, NodeIndex> = BTreeMap::new();
    for (address, name) in disassembly.lines().filter_map(head).filter(|(_, name)| name.contains("::")) {
        nodes.entry(address).or_insert_with(|| graph.add_node(name));
    }
    let mut caller = None;
    for line in disassembly.lines() {
        if let Some((address, _)) = head(line) {
            caller = nodes.get(address).copied();
        } else if let (Some(caller), Some(callee)) = (caller, target(line).and_then(|to| nodes.get(to))) {
            graph.update_edge(caller, *callee, ());
        }
    }
    let circles = |set: &Vec<NodeIndex>| set.len() > 1 || graph.contains_edge(set[0], set[0]);
    let sets = kosaraju_scc(&graph).into_iter().filter(circles);
    sets.map(|set| set.into_iter().map(|node| graph[node]).collect()).collect()
}

/// Where a function begins: `address <name>:`.
fn head(line: &str) -> Option<(&str, &str)> {
    let (address, name) = line.strip_suffix(">:")?.split_once(" <")?;
    Some((address.trim_start_matches('0'), name))
}

/// Where an instruction goes, whose operand is `address <name>`: a call, or a jump that may be one.
fn target(line: &str) -> Option<&str> {
    let (_, instruction) = line.split_once(":\t")?;
    let (before, _) = instruction.split_once(" <")?;
    let mnemonic = instruction.split_whitespace().next()?;
    let goes = mnemonic.starts_with(['j', 'b', 'c', 't']);
    before.rsplit([' ', '\t', ',']).next().filter(|_| goes)
}
