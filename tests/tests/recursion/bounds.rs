//! The recursion that there is in our own code, and what bounds it.

/// Functions that may come back to themselves and to each other: parts of their names, and how deep that goes at most.
pub(crate) type Bound = (&'static [&'static str], &'static str);

/// All of them. What is not here is an error, and what is here and no recursion is one, too.
pub(crate) const BOUNDS: &[Bound] = &[
    (&["pagetables::"], "the levels of a page table: five at most"),
    (
        &["sandbox::jail::filter::append"],
        "how conditions are nested in the list of host calls, which is a constant",
    ),
    (&["fs::layer::lower::Opened"], "one: its Drop takes the directories above out one after another"),
    (&["vfs::dentry::"], "one: its Drop takes out those above one after another"),
    (
        &["vfs::mount::"],
        "mounts on mounts, of which there are 2,048 in all; tried with as many, each on the one before",
    ),
    (
        &["kernel::task::Task", "kernel::group::", "kernel::trace::Trace", "kernel::coredump::gather::"],
        "two: a process that is freed has no tasks but the one that executes a program; a core is gathered of none that is freed",
    ),
    (
        &["fs::through::"],
        "two: what is still to be written back is dropped once, with the last of the trees that it came from",
    ),
    (&["net::inet::tcp::"], "two: what waits to be accepted does not listen"),
    (
        &["net::unix::"],
        "two: what waits to be accepted does not listen, and messages hold no sockets but as files (`vfs::flight`)",
    ),
    (&["kernel::pids::"], "how deep pid namespaces nest: 32 levels, as on Linux"),
    (&["cred::userns::"], "how deep user namespaces nest: 33 levels, as on Linux"),
    (&["fs::epoll::nesting::"], "five levels of epolls, as on Linux"),
    (
        &["platform::systrap::space::Tables>::"],
        "two: the alias has been given up before the pages that were reached by it are brought back",
    ),
    (&["platform::selftest::recurse"], "none: it overflows its stack on purpose"),
    (&["kernel::panic::recurse"], "none: it overflows its stack on purpose"),
];
