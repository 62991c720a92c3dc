/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers that can be left out, one by one, to see what the others still stop (tests/tools/matrix.c). Only in programs that are
 * compiled with PB_TEST_LAYERS, into a folder of their own; in all others this is the constant false, and nothing of it is
 * there to be found.
 */
#ifndef PT2BOX_CONFINE_TEST_LAYERS_H
#define PT2BOX_CONFINE_TEST_LAYERS_H

#include <stdbool.h>

#ifdef PB_TEST_LAYERS
#define PB_TEST_LAYERS_ENV "PB_TEST_LAYERS_OFF"
/* The name is one of those in the environment variable, which has commas between them. */
bool pb_test_layer_off(const char *name);
/* "PB_TEST_LAYERS_OFF=...", for the environment of a process that is started. */
char *pb_test_layers_pass_on(void);
#else
#define pb_test_layer_off(name) false
#endif

#endif
