/* SPDX-License-Identifier: Apache-2.0 */
/* What tests/plugins/hostile.c does, by the first element of its argument. */
#ifndef TESTS_PLUGINS_HOSTILE_H
#define TESTS_PLUGINS_HOSTILE_H

enum hostile {
	HOSTILE_NOT = 0,
	HOSTILE_CRASH = 1001,
	HOSTILE_HANG,
	HOSTILE_TOO_MUCH,
	HOSTILE_NO_RESULT,
	HOSTILE_FORGE,
	HOSTILE_SOCKET,
	HOSTILE_FILE,
	HOSTILE_EXIT,
	HOSTILE_FAIL,
	HOSTILE_STORE_INPUT,
	HOSTILE_STRANGER,
	HOSTILE_OTHER_SHAPE,
};

#endif
