/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fairness where there are no control groups for the CPU: while several tenants have runs, each has as many workers that
 * claim them as is its part of the CPUs; the others of its workers wait, and they take turns. A worker sees it on its
 * board before it claims; the one in a run finishes it. A model that has taken its worker over need not look: then only the
 * deadlines of its runs hold it.
 */
#include "broker/broker.h"

#define LOOK_NS 20000000u
#define ACTIVE_NS 200000000u /* a tenant whose last run was that long ago does not wait for the CPU */

static uint32_t count_active(const struct pb_broker *b, uint64_t now)
{
	uint32_t n = 0;

	for (const struct pb_tenant *t = b->tenants; t; t = t->next)
		n += t->active_ns && now - t->active_ns < ACTIVE_NS;
	return n;
}

static uint32_t count_workers(const struct pb_broker *b, const struct pb_tenant *t)
{
	uint32_t n = 0;

	for (const struct pb_client *c = b->clients; c; c = c->next)
		for (const struct pb_model_rec *m = c->tenant == t ? c->models : NULL; m; m = m->next)
			for (uint32_t w = 0; w < m->top; w++)
				n += m->worker[w].state == PB_W_READY;
	return n;
}

static void set_paused(struct pb_model_rec *m, uint64_t paused, uint64_t now)
{
	if (paused)
		m->paused_ns = now;
	if (m->board && atomic_exchange(&m->board->paused, paused) != paused)
		pb_board_ring(m);
}

/* @may of the @all workers of a tenant, beginning with another one each time. */
static void take_turns(struct pb_broker *b, const struct pb_tenant *t, uint32_t may, uint32_t all, uint64_t now)
{
	const uint32_t first = all > may ? b->fair_turn * may % all : 0;
	uint32_t i = 0;

	for (struct pb_client *c = b->clients; c; c = c->next)
		for (struct pb_model_rec *m = c->tenant == t ? c->models : NULL; m; m = m->next) {
			uint64_t paused = 0;

			for (uint32_t w = 0; w < m->top; w++)
				if (m->worker[w].state == PB_W_READY && (i++ + all - first) % all >= may)
					paused |= 1ull << w;
			set_paused(m, paused, now);
		}
}

uint64_t pb_fair_tick(struct pb_broker *b, uint64_t now)
{
	uint32_t active, may;

	if (b->shares_cpu || b->config.embedded_fd >= 0 || !b->clients)
		return UINT64_MAX;
	if (now < b->fair_ns)
		return b->fair_ns;
	b->fair_ns = now + LOOK_NS;
	b->fair_turn++;
	active = count_active(b, now);
	may = active < 2 ? UINT32_MAX : b->cpus > active ? b->cpus / active : 1;
	for (const struct pb_tenant *t = b->tenants; t; t = t->next) {
		const uint32_t all = count_workers(b, t);

		if (all)
			take_turns(b, t, may, all, now);
	}
	/* With nothing to share out only a new run changes anything, and that is seen when lanes are looked at. */
	return active ? b->fair_ns : UINT64_MAX;
}
