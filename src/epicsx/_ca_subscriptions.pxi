# Handles on subscriptions, and the lane in which each is. Part of _ca.pyx; declared in _ca.pxd.

BULK_BYTES = 256 * 1024
"""Events larger than this come over a channel of their own in the bulk lane."""


cdef Core core_in(Core home, str lane):
    """The channel of the same name in another lane, made and being searched for; `home` itself in its own lane."""
    if home.context.name == lane:
        return home
    if home.bulk is None or (<Core> home.bulk).ch.state == EX_CLOSED:
        home.bulk = core(home.name, home.priority, context(lane))
    return home.bulk


cdef Core events_core(Core home, int dbr_type, unsigned long count, str lane):
    """Which channel shall carry the events: of large arrays one in the bulk lane, for which no scalar waits."""
    cdef size_t n = home.ch.count
    if lane == "default" or home.context.name == "bulk" or home.context.lane.polled:
        return home
    if count and count < n:
        n = count
    if lane == "auto" and n * element_size(home.resolve(dbr_type)) <= <size_t> BULK_BYTES:
        return home
    return core_in(home, "bulk")


@cython.no_gc_clear
cdef class Subscription:
    """A handle on a running subscription: its callback, its place in the queue, its counts."""

    def __dealloc__(self):
        if self.h == NULL or self.context.generation != ex_generation_now():
            return
        ex_handle_close(self.h)
        ex_handle_unref(self.h)

    cdef int open_(self, Core home, int dbr_type, unsigned long count, long mask, size_t bound, bint latest,
                   bint queueing, str lane) except -1:
        cdef Core core
        cdef size_t limit = 0
        check_mask(home.name, mask)
        core = events_core(home, dbr_type, count, lane)
        if core is home and lane == "auto" and home.context.name != "bulk" and not home.context.lane.polled:
            limit = BULK_BYTES          # if that is exceeded when it first connects, the dispatcher calls `move`
        self.core = home
        self.name = home.name
        return self.take_place(core, EX_TIME_OF_NATIVE if dbr_type == -1 else dbr_type, count, mask, bound, latest,
                               queueing, limit)

    cdef int take_place(self, Core core, int type, unsigned long count, long mask, size_t bound, bint latest,
                        bint queueing, size_t limit) except -1:
        """Have a handle on that channel. The GIL is not let go."""
        cdef ex_handle *h
        cdef ex_sub *sub = ex_sub_get(core.ch, type, count, mask, limit)
        if sub == NULL:
            raise MemoryError
        h = ex_handle_new(sub, queueing, bound, latest, 1, <void *> self, self.loop_inbox())
        if h == NULL:
            ex_sub_leave(sub)
            raise MemoryError
        self.h = h
        self.events = core
        self.context = core.context
        return 0

    cdef ex_inbox *loop_inbox(self) noexcept:
        return NULL

    cdef int move(self) except -1:
        """Its events would be large, and libca was not asked for them: go on in the bulk lane. Thread: who delivers."""
        cdef ex_handle *old = self.h
        cdef ex_sub *sub
        cdef Core home = self.core
        cdef Core core
        if home is None or old == NULL or old.closed:
            return 0
        core = core_in(home, "bulk")    # may start the lane and let the GIL go: somebody may close it meanwhile
        if self.h != old or old.closed:
            return 0
        sub = old.sub
        self.take_place(core, sub.type, sub.count, sub.mask, old.max_events, old.latest, old.queueing, 0)
        ex_handle_close(old)            # nothing has come by it
        ex_handle_unref(old)
        return 0

    cdef int close_(self) except -1:
        if self.h != NULL and self.context.generation == ex_generation_now():
            ex_handle_close(self.h)
        if self.pinned:
            self.pinned = False
            self.core.context.pinned.discard(self)
        return 0

    cdef int deliver(self, ex_taken *t) except -1:
        """One update, on the dispatcher. The block's reference goes to the sample."""
        cdef ex_block *b = t.block
        t.block = NULL
        self.since = t.since
        self.callback(sample_of(b, self.name, self.h.sub.channel.type))
        return 0

    cdef ex_block *newest(self, int *fresh) noexcept:
        return ex_sub_newest(self.h.sub, fresh)

    cdef int release(self) except -1:
        """Close, and forget the handle: another may be opened."""
        self.close_()
        if self.h != NULL and self.context.generation == ex_generation_now():
            ex_handle_unref(self.h)
        self.h = NULL
        self.events = None
        return 0

    cdef int set_queueing(self, bint queueing) except -1:
        ex_handle_set_queueing(self.h, queueing)
        return 0

    def time_arrivals(self) -> None:
        """Have the time of each update's arrival kept to the nanosecond, for ``age_ns``."""
        if self.h != NULL:
            ex_handle_set_timed(self.h)

    @property
    def age_ns(self) -> int:
        """How long ago the update that is being delivered came, in nanoseconds. Thread: its callback's."""
        return ex_now() - self.since

    def close(self) -> None:
        """End this handle: no further callback begins, what waits is dropped and counted. Idempotent."""
        self.close_()
        self.core = self.events = None  # a closed handle that is kept does not keep the channel open

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self.h == NULL or self.h.closed != 0

    @property
    def latest(self) -> Sample | None:
        """The newest sample that came, delivered or not; None before the first."""
        cdef ex_block *b = ex_sub_newest(self.h.sub, NULL) if self.h != NULL else NULL
        return sample_of(b, self.name, self.h.sub.channel.type) if b != NULL else None

    @property
    def stats(self) -> Counts:
        """One consistent copy of the counts: received == delivered + merged + dropped + pending. Zeros after fork()."""
        cdef ex_counts c
        if self.h == NULL:
            return Counts(0, 0, 0, 0, 0)
        ex_handle_counts(self.h, &c)
        return Counts(c.received, c.delivered, c.merged, c.dropped, c.pending)

    def __getattr__(self, str name):
        # received, delivered, merged, dropped, pending: each a fresh look, so not consistent with one another
        if name in Counts._fields:
            return getattr(self.stats, name)
        raise AttributeError(f"'Subscription' object has no attribute {name!r}")

    def __repr__(self):
        return f"<Subscription {self.name!r} {self.stats}>"
