/* SPDX-License-Identifier: Apache-2.0 */
/*
 * isolate=request: a worker serves one run and ends, and a fresh fork takes its place. The broker is not on the path of
 * a run, so it hears of one by the end of its worker; what the worker has left in the lanes says whether that end was in
 * order. A model that breaks out of its runtime can serve on: it is seen with a second run, and ended.
 */
#include "broker/broker.h"

/* The request in this slot was answered by worker @w, which has not been told of yet. */
static bool has_served(struct pb_lane_rec *l, uint32_t slot, uint32_t w)
{
	struct pb_lane_peek p;

	pb_lane_look(&l->lane, slot, &p);
	if (!p.served || p.worker != w || l->watch[slot].served == p.seq)
		return false;
	l->watch[slot].served = p.seq;
	return true;
}

bool pb_isolate_has_served(struct pb_model_rec *m, uint32_t w)
{
	if (m->worker[w].run.in_closed_lane)
		return true;
	for (struct pb_lane_rec *l = m->lanes; l; l = l->next)
		for (uint32_t s = 0; s < l->lane.geo.slots; s++)
			if (has_served(l, s, w))
				return true;
	return false;
}

void pb_isolate_lane_closes(struct pb_lane_rec *l)
{
	if (!l->model->opt.isolate)
		return;
	for (uint32_t s = 0; s < l->lane.geo.slots; s++) {
		struct pb_lane_peek p;

		pb_lane_look(&l->lane, s, &p);
		if (has_served(l, s, p.worker))
			l->model->worker[p.worker].run.in_closed_lane = true;
	}
}

bool pb_isolate_is_second_run(const struct pb_lane_rec *l, uint32_t slot, const struct pb_lane_peek *p)
{
	struct pb_worker_rec *rec = &l->model->worker[p->worker];
	struct pb_run_seen *run = &rec->run;

	if (!l->model->opt.isolate || rec->state != PB_W_READY)
		return false;
	if (!run->lane) {
		run->lane = l->id;
		run->slot = slot;
		run->seq = p->seq;
	}
	return run->lane != l->id || run->slot != slot || run->seq != p->seq;
}
