/* SPDX-License-Identifier: Apache-2.0 */
/* How a model that serves is: what its processes died of, and whether it is still of use. */
#include <stdio.h>
#include <string.h>

#include "broker/broker.h"

#define RECENT_NS 60000000000u /* a death makes a model degraded for so long */

/* It has died young again and again, and none has lived since. */
static bool dies_at_start(const struct pb_worker_rec *rec, uint64_t now)
{
	return rec->quick_deaths > PB_QUICK_DEATHS &&
	       !(rec->state == PB_W_READY && now - rec->forked_ns >= PB_QUICK_DEATH_NS);
}

/* None of its workers outlives its start; or it has been given up. */
static bool is_quarantined(const struct pb_model_rec *m, uint64_t now)
{
	bool any = false;

	if (m->state == PB_M_BROKEN)
		return true;
	for (uint32_t w = 0; w < m->top; w++) {
		const struct pb_worker_rec *rec = &m->worker[w];

		if (!rec->used)
			continue;
		if (!dies_at_start(rec, now))
			return false;
		any = true;
	}
	return any;
}

static bool is_degraded(const struct pb_model_rec *m, uint64_t now)
{
	if (m->health.status && now - m->health.ns < RECENT_NS)
		return true;
	for (uint32_t w = 0; w < m->top; w++)
		if (m->worker[w].used && dies_at_start(&m->worker[w], now))
			return true;
	return m->announced && !m->template_ready;
}

const char *pb_health_name(const struct pb_model_rec *m, uint64_t now)
{
	return is_quarantined(m, now) ? "quarantined" : is_degraded(m, now) ? "degraded" : "healthy";
}

void pb_health_check(struct pb_broker *b, struct pb_model_rec *m, const struct pt2box_error *why)
{
	const bool was_told = m->health.told;

	m->health.told = is_quarantined(m, pb_now_ns());
	if (m->health.told && !was_told)
		pb_audit(b, m->client, m, "quarantined", NULL, why);
}

void pb_health_note(struct pb_broker *b, struct pb_model_rec *m, const char *what, bool killed,
		    const struct pt2box_error *why)
{
	struct pb_health *h = &m->health;

	if (why->status < PB_STATUS_MAX)
		h->deaths[why->status]++;
	h->status = why->status;
	h->signal = why->signal;
	h->ns = pb_now_ns();
	pb_text_escape(h->text, sizeof(h->text), why->text, strlen(why->text));
	pb_audit(b, m->client, m, killed ? "killed" : "died", what, why);
	pb_health_check(b, m, why);
}
