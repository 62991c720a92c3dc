/* SPDX-License-Identifier: Apache-2.0 */
/* How far a batch is, on stderr: a bar on a terminal, else a line now and then. */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "client/cmd/batch.h"

#define BAR 30

static struct {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t stopped;
	bool running, stop, terminal;
	double began;
} p = {.lock = PTHREAD_MUTEX_INITIALIZER, .stopped = PTHREAD_COND_INITIALIZER};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void duration(double s, char ret[32])
{
	unsigned long long n = s < 1e9 ? (unsigned long long)s : 0;

	if (s < 0 || s >= 1e9)
		snprintf(ret, 32, "?");
	else if (n >= 3600)
		snprintf(ret, 32, "%llu:%02llu:%02llu", n / 3600, n / 60 % 60, n % 60);
	else
		snprintf(ret, 32, "%llu:%02llu", n / 60, n % 60);
}

static void show(const struct batch *b)
{
	uint64_t before = atomic_load(&b->before), bad = atomic_load(&b->quarantined), done = atomic_load(&b->done),
		 ended = before + done + bad;
	double rate = (double)(done + bad) / (now_s() - p.began + 1e-6), left = (double)(b->total > ended ? b->total - ended : 0);
	char bar[BAR + 1], eta[32];
	uint64_t full = b->total ? ended * BAR / b->total : BAR;

	duration(rate > 0 ? left / rate : -1, eta);
	for (uint64_t i = 0; i < BAR; i++)
		bar[i] = i < full ? '#' : '.';
	bar[BAR] = '\0';
	fprintf(stderr, p.terminal ? "\r[%s] %llu/%llu  %.0f/s  %s left  %llu quarantined\033[K" : "pt2box: %.0s%llu of %llu, %.0f/s, %s left, %llu quarantined\n",
		bar, (unsigned long long)ended, (unsigned long long)b->total, rate, eta, (unsigned long long)bad);
}

static void *tick(void *data)
{
	const struct batch *b = data;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	pthread_mutex_lock(&p.lock);
	while (!p.stop) {
		until.tv_sec += p.terminal ? 0 : 10;
		until.tv_nsec += p.terminal ? 250000000 : 0;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		while (!p.stop && pthread_cond_timedwait(&p.stopped, &p.lock, &until) == 0)
			;
		if (!p.stop)
			show(b);
	}
	pthread_mutex_unlock(&p.lock);
	return NULL;
}

void batch_progress_start(struct batch *b)
{
	p.terminal = isatty(STDERR_FILENO);
	p.began = now_s();
	p.running = pthread_create(&p.thread, NULL, tick, b) == 0;
}

void batch_progress_stop(struct batch *b)
{
	uint64_t before = atomic_load(&b->before), bad = atomic_load(&b->quarantined), done = atomic_load(&b->done);
	double s = now_s() - p.began;
	uint64_t ended = before + done + bad;

	if (p.running) {
		pthread_mutex_lock(&p.lock);
		p.stop = true;
		pthread_cond_signal(&p.stopped);
		pthread_mutex_unlock(&p.lock);
		pthread_join(p.thread, NULL);
	}
	if (p.terminal)
		fputs("\r\033[K", stderr);
	fprintf(stderr, "pt2box: %llu done, %llu before, %llu quarantined, %llu left; %.1f s, %.0f items/s\n", (unsigned long long)done,
		(unsigned long long)before, (unsigned long long)bad, (unsigned long long)(b->total > ended ? b->total - ended : 0),
		s, (double)(done + bad) / (s + 1e-6));
	if (batch_source_ignored(b))
		fprintf(stderr, "pt2box: %llu files are no .npz, .npy or .safetensors\n", (unsigned long long)batch_source_ignored(b));
}
