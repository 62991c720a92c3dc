/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a .safetensors file. */
#define FORMAT PB_FORMAT_SAFETENSORS
#include "tests/fuzz/cmd/array_file.inc"
