/* SPDX-License-Identifier: Apache-2.0 */
/* See cmd.h. The library's calls block, so a thread of its own writes the line. */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "client/cmd/cmd.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t stopped = PTHREAD_COND_INITIALIZER;
static pthread_t thread;
static bool running, stop;

static void *tick(void *what)
{
	struct timespec until;
	unsigned int seconds = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	pthread_mutex_lock(&lock);
	while (!stop) {
		until.tv_sec++;
		while (!stop && pthread_cond_timedwait(&stopped, &lock, &until) == 0)
			;
		if (!stop)
			fprintf(stderr, "\rpt2box: %s, %u s\033[K", (const char *)what, ++seconds);
	}
	pthread_mutex_unlock(&lock);
	if (seconds)
		fputs("\r\033[K", stderr);
	return NULL;
}

void cmd_progress_start(const char *what)
{
	sigset_t all, before;

	if (running || !isatty(STDERR_FILENO))
		return;
	stop = false;
	/* Signals are the main thread's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	running = pthread_create(&thread, NULL, tick, (void *)(uintptr_t)what) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void cmd_progress_stop(void)
{
	if (!running)
		return;
	pthread_mutex_lock(&lock);
	stop = true;
	pthread_cond_signal(&stopped);
	pthread_mutex_unlock(&lock);
	pthread_join(thread, NULL);
	running = false;
}
