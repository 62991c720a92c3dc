/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When its constants are changed, it lies to the broker: from the dry run on, or once a run has
 * asked for it; in[1] says how. What it says is written by hand: [id, fields...], see
 * ipc/messages.def.
 */
#define CONSTANTS_EMBEDDED
#define ON_UPDATE lie_now
static int lie_now(void);
#include "tests/hostile/base.h"

enum { NO_LIE, NEVER_RETURNS, CLOSES, ACKS_EVERYTHING, GARBAGE, DIES, REFUSES, CLOSES_QUIETLY };

static int lie;

static int attack(void)
{
	lie = AT == AT_RUN ? (int)now.in[1] : NEVER_RETURNS;
	return 0;
}

static void say(int id, uint32_t number, int status)
{
	unsigned char m[] = {0x92,
			     (unsigned char)id,
			     0xce,
			     (unsigned char)(number >> 24),
			     (unsigned char)(number >> 16),
			     (unsigned char)(number >> 8),
			     (unsigned char)number,
			     (unsigned char)status};

	if (status >= 0)
		m[0] = 0x93;
	(void)!write(AT == AT_RUN ? 4 : 3, m, sizeof(m) - (status < 0));
}

static void say_all(void)
{
	static const uint32_t numbers[] = {0, 1, 2, 3, 4, 0x7fffffff, 0xffffffff};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		say(88, numbers[i], -1);  /* constants_staged */
		say(89, numbers[i], 0);	  /* constants_applied */
		say(89, numbers[i], 127); /* with a status that there is not */
		say(91, numbers[i], 0);	  /* constants_extracted */
	}
}

static int lie_now(void)
{
	static char junk[512];

	switch (lie) {
	case NEVER_RETURNS:
		for (;;)
			futex_sleep_ms(1000);
	case CLOSES:
		close(AT == AT_RUN ? 4 : 3);
		for (;;)
			futex_sleep_ms(1000);
	case CLOSES_QUIETLY:
		close(AT == AT_RUN ? 4 : 3);
		return 0;
	case ACKS_EVERYTHING:
		say_all();
		return 0;
	case GARBAGE:
		memset(junk, 0xc1, sizeof(junk));
		(void)!write(AT == AT_RUN ? 4 : 3, junk, sizeof(junk));
		return 0;
	case DIES:
		__builtin_trap();
	case REFUSES:
		return 1;
	default:
		return 0;
	}
}
