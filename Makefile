# SPDX-License-Identifier: Apache-2.0
#
# pt2box's one Makefile. `make help` lists the targets.
# Variants, each in a folder of its own: san=address,undefined; fuzz=1 (clang, libFuzzer); lint=1. dev=1: warnings are errors.

VERSION := 0.1.0
SOMAJOR := 0
prefix ?= /usr/local
bindir ?= $(prefix)/bin
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
libexecdir ?= $(prefix)/libexec
mandir ?= $(prefix)/share/man
unitdir ?= $(prefix)/lib/systemd/system
docdir ?= $(prefix)/share/doc/pt2box
PRIVATE := $(libexecdir)/pt2box

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
HOSTCC ?= gcc
PYTHON ?= python3
ifdef fuzz
CC := clang
CXX := clang++
san ?= address,undefined
endif
B := build$(if $(fuzz),/fuzz,$(if $(lint),/lint/scan,$(if $(san),/san)))
SANFLAGS := $(if $(san),-fsanitize=$(san) -fno-sanitize-recover=all -fno-omit-frame-pointer) \
	$(if $(fuzz),-fsanitize=fuzzer-no-link -DPB_LIBFUZZER)
OPT ?= $(if $(lint),-O0,$(if $(san),-O1,-O2))
# clang calls {NULL} an incomplete initialiser; here it is the idiom for "all zero".
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wundef $(if $(dev),-Werror) \
	$(if $(fuzz)$(lint),-Wno-missing-field-initializers)
CXXWARN := -Wall -Wextra $(if $(dev),-Werror)
HARDEN := $(if $(san)$(lint),,-D_FORTIFY_SOURCE=2) -fstack-protector-strong -fstack-clash-protection
# Portable x86-64: kernels for newer instruction sets are chosen at run time. No -march here.
COMMON = -g $(OPT) -fPIC -fvisibility=hidden $(SANFLAGS) $(HARDEN) -I. -I$(B)/gen -D_GNU_SOURCE -DPB_VERSION='"$(VERSION)"'
ALL_CFLAGS = -std=gnu17 $(WARN) $(COMMON) $(CFLAGS)
ALL_CXXFLAGS = -std=c++17 $(CXXWARN) $(COMMON) $(CXXFLAGS)
ALL_LDFLAGS := $(SANFLAGS) -Wl,-z,relro,-z,now -Wl,-z,noexecstack $(LDFLAGS)
RUNTIME_LIBS := -Wl,--no-as-needed -lsleef -lgomp -Wl,--as-needed -lm

# All CPUs, unless the user said how many.
SUBMAKE = $(MAKE) --no-print-directory $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))

# Sources are found, not listed; only the mains are named.
# Replaces malloc and open in the worker: must not get into anything else.
INTERPOSE := worker/interpose.c
src = $(filter-out $(MAINS),$(wildcard $(1)))
MAINS := broker/main.c broker/intake/main.c worker/main.c proxy/main.c client/cmd/main.c confine/policyc.c $(INTERPOSE)
IPC := $(call src,ipc/*.c)
CONFINE := $(call src,confine/*.c)
BROKER := $(call src,broker/*.c)
INTAKE := $(call src,broker/intake/*.c)
WORKER := $(call src,worker/*.c)
TORCH := $(call src,torch/*.c)
PROXY := $(call src,proxy/*.c)
CLIENT := $(call src,client/*.c)
COMMAND := $(call src,client/cmd/*.c)
RUNTIME := $(wildcard runtime/*.c runtime/ops/*.c)
RUNTIME_CXX := $(wildcard runtime/*.cc)
obj = $(patsubst %.c,$(B)/obj/%.o,$(filter %.c,$(1))) $(patsubst %.cc,$(B)/obj/%.o,$(filter %.cc,$(1)))
RUNTIME_OBJ := $(call obj,$(RUNTIME) $(RUNTIME_CXX))
POLICIES := $(sort $(wildcard policies/*.policy))
POLICY_OBJ := $(if $(wildcard confine/policyc.c),$(B)/obj/gen/policies.o)

PROGRAMS := $(B)/pt2box $(B)/libexec/pt2boxd $(B)/libexec/pt2box-worker $(B)/libexec/pt2box-intake $(B)/libexec/pt2box-ops
LIBRARIES := $(B)/libpt2box.a $(B)/libpt2box.so $(B)/libexec/libtorch_cpu.so
UNIT_SRC := $(sort $(wildcard tests/unit/*/test_*.c))
UNIT := $(patsubst tests/%.c,$(B)/tests/%,$(UNIT_SRC))
INTEG_SRC := $(sort $(wildcard tests/integration/test_*.c))
INTEG := $(patsubst tests/%.c,$(B)/tests/%,$(INTEG_SRC))
PYTESTS := $(sort $(wildcard tests/python/test_*.py))
TESTLIB := $(wildcard tests/lib/*.c)
# Hostile models: each source once for each moment at which it attacks (constructor, create, dry run, run).
HOSTILE := $(foreach at,0 1 2 3,$(patsubst tests/hostile/%.c,$(B)/tests/hostile/%.$(at).so,$(wildcard tests/hostile/*.c)))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/*/fuzz_*.c))
FUZZ := $(patsubst tests/%.c,$(B)/tests/%,$(FUZZ_SRC))
TOOLS_SRC := $(wildcard tests/tools/*.c)
TOOLS := $(patsubst tests/tools/%.c,$(B)/tests/tools/%,$(TOOLS_SRC))
BENCHES_SRC := $(wildcard bench/*.c)
BENCHES := $(patsubst bench/%.c,$(B)/bench/%,$(BENCHES_SRC))
# The runtime's LAPACK is loaded by the worker for packages that need it; a test of the runtime has it from the start.
LAPACK_LIBS := -Wl,--no-as-needed -llapacke -lblas -Wl,--as-needed
TEST_LIBS := -lcmocka -lconfuse -lzip -lsqlite3 -lz -lmsgpackc -ljansson -lcrypto $(RUNTIME_LIBS) $(LAPACK_LIBS) -lstdc++ -ldl -lpthread
# A test or hostile model may ask for linker flags in a comment of its own: /* ldflags: -Wl,--wrap=malloc */
own_ldflags = $$(sed -n 's|^/\* ldflags: \(.*\) \*/|\1|p' $(1))

# Debian's interpreter, whose packages tools/setup.sh installs; the module runs in any Python from 3.11 on.
PYTHON3 := $(firstword $(wildcard /usr/bin/python3) python3)
PYTHON_INCLUDE = -I$(shell $(PYTHON3) -c 'import sysconfig; print(sysconfig.get_path("include"))')
# No sanitizer in a module that an interpreter without one loads.
PYTHON_HOST := $(if $(san)$(fuzz),,$(addprefix $(B)/libexec/python/,_ops.abi3.so host.py ops.py))
PYTHON_PARTS := $(B)/python/pt2box/_core.abi3.so $(patsubst python/%,$(B)/python/%,$(wildcard python/pt2box/*.py python/pt2box/*.pyi python/pt2box/py.typed)) \
	$(B)/python/pt2box/libexec $(B)/python/compiled

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

.PHONY: all
all: ready ## build every program and library into build/
	@$(SUBMAKE) programs

.PHONY: programs tests-build tests-objects fuzz-build python
programs: $(PROGRAMS) $(LIBRARIES) $(PYTHON_HOST) $(B)/pt2boxd $(B)/libpt2box.so.$(SOMAJOR) $(B)/pt2box.pc $(B)/pt2boxd.service
tests-build: programs $(PLUGINS) $(if $(san)$(fuzz),,$(PYTHON_PARTS)) $(UNIT) $(INTEG) $(FUZZ) $(TOOLS) $(HOSTILE) $(B)/host/docgen
tests-objects: $(call obj,$(UNIT_SRC) $(INTEG_SRC) $(FUZZ_SRC) $(TOOLS_SRC) $(BENCHES_SRC) $(TESTLIB))
fuzz-build: $(FUZZ)

# ---- what the build needs -------------------------------------------------------------------------------------------

.PHONY: ready ready-lint setup
ready:
	@tools/setup.sh
ready-lint:
	@tools/setup.sh --lint
setup: ready ## install the Debian packages that pt2box is built from

# ---- compile --------------------------------------------------------------------------------------------------------

# A file per set of flags, written only when they change: changed flags rebuild.
stamp = @mkdir -p $(@D); echo '$(subst ','\'',$(1))' | cmp -s - $@ || echo '$(subst ','\'',$(1))' > $@
$(B)/flags: FORCE
	$(call stamp,$(CC) $(ALL_CFLAGS) $(CXX) $(ALL_CXXFLAGS) $(ALL_LDFLAGS))
$(B)/places: FORCE
	$(call stamp,$(prefix) $(libdir) $(includedir) $(PRIVATE))
.PHONY: FORCE
FORCE:

# Only what is compiled with the place of the private folder is built again for another prefix.
PLACED := $(call obj,$(shell grep -ls PB_LIBEXEC_DIR broker/*.c client/*.c client/cmd/*.c))
$(PLACED): private COMMON += -DPB_LIBEXEC_DIR='"$(PRIVATE)"'
$(PLACED): $(B)/places
$(if $(lint),$(B)/obj/runtime/ops/%.o: private override CC := $(HOSTCC)) # not analysed: see tools/lint.sh
$(B)/obj/runtime/%.o: private OPT := $(if $(san),-O1,-O3)
$(B)/obj/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/obj/%.o: %.cc $(B)/flags
	@mkdir -p $(@D)
	$(CXX) $(ALL_CXXFLAGS) -MMD -MP -c -o $@ $<
$(B)/obj/gen/%.o: $(B)/gen/%.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Tools of the build itself have the plain compiler in every variant.
# Policies are compiled to BPF at build time; nothing parses text at run time.
$(B)/host/policyc: confine/policyc.c
	@mkdir -p $(@D)
	$(HOSTCC) -std=gnu17 $(WARN) -g -O1 -I. -D_GNU_SOURCE -MMD -MP -MF $@.d -o $@ $< -lseccomp
$(B)/host/docgen: tools/docgen.c
	@mkdir -p $(@D)
	$(HOSTCC) -std=gnu17 $(WARN) -g -O1 -I. -D_GNU_SOURCE -MMD -MP -MF $@.d -o $@ $<
$(B)/gen/policies.c: $(B)/host/policyc $(POLICIES)
	@mkdir -p $(@D)
	$(B)/host/policyc $(POLICIES) > $@

# Everything but the mains in an archive a folder, for tests and tools: the linker takes what a test names.
UNITS_check := tests/lib/check.c tests/lib/fail.c
UNITS_testlib := $(filter-out $(UNITS_check),$(TESTLIB))
UNITS_ipc := $(IPC)
UNITS_confine := $(CONFINE)
UNITS_broker := $(BROKER)
UNITS_intake := $(INTAKE)
UNITS_worker := $(WORKER)
UNITS_torch := $(TORCH)
UNITS_proxy := $(PROXY)
UNITS_client := $(CLIENT) $(COMMAND)
UNITS_runtime := $(RUNTIME) $(RUNTIME_CXX)
ALL_UNITS := testlib check runtime proxy client worker torch intake broker confine ipc
define units_rule
$(B)/units/$(1).a: $(call obj,$(UNITS_$(1))) $(if $(filter confine,$(1)),$(POLICY_OBJ))
	@mkdir -p $$(@D); rm -f $$@; ar rcs $$@ $$^
endef
$(foreach u,$(ALL_UNITS),$(eval $(call units_rule,$(u))))
# What the tests of a folder are linked with: its own archive and those below it, so that a change elsewhere costs nothing.
BELOW_ipc := check ipc
BELOW_confine := testlib check confine ipc
BELOW_runtime := testlib check runtime ipc
BELOW_client := testlib check client ipc
BELOW_cmd := $(BELOW_client)
BELOW_attacks := check
BELOW_intake := testlib check intake confine ipc
BELOW_broker := testlib check broker confine ipc
BELOW_proxy := testlib check runtime proxy torch intake client confine ipc
BELOW_worker := testlib check worker torch client intake confine ipc
units = $(patsubst %,$(B)/units/%.a,$(or $(BELOW_$(firstword $(subst /, ,$(1)))),$(ALL_UNITS)))
grouped = $(filter %.o,$(1)) -Wl,--start-group $(filter %.a,$(1)) -Wl,--end-group

$(B)/libpt2box.a: $(call obj,$(CLIENT) $(IPC))
	@rm -f $@; ar rcs $@ $^
$(B)/libpt2box.so.$(VERSION): $(call obj,$(CLIENT) $(IPC))
	$(CC) -shared $(ALL_LDFLAGS) -Wl,-soname,libpt2box.so.$(SOMAJOR) -o $@ $^ -lmsgpackc -ljansson -lpthread
$(B)/libpt2box.so $(B)/libpt2box.so.$(SOMAJOR): $(B)/libpt2box.so.$(VERSION)
	ln -sf $(<F) $@
$(B)/pt2box: $(call obj,client/cmd/main.c $(COMMAND)) $(B)/libpt2box.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -lzip -lsqlite3 -lmsgpackc -ljansson -lpthread -lm
# Each is linked twice: see "layers" below.
PARTS_pt2boxd := broker/main.c $(BROKER) $(CONFINE) $(IPC)
LINK_pt2boxd := -lmsgpackc -lconfuse -lpthread
PARTS_pt2box-intake := broker/intake/main.c $(INTAKE) $(CONFINE) $(IPC)
LINK_pt2box-intake := -lzip -lz -lmsgpackc -ljansson -lcrypto
# A dynamic list, not -rdynamic: a model binds malloc, open and the like to the worker's own definitions first.
PARTS_pt2box-worker := worker/main.c $(INTERPOSE) $(WORKER) $(TORCH) $(CONFINE) $(IPC)
LINK_pt2box-worker := -Wl,--dynamic-list=worker/exports.list -lmsgpackc -ldl -lpthread
define program_rule
$(B)/libexec/$(1): $(call obj,$(PARTS_$(1))) $(POLICY_OBJ) worker/exports.list
	@mkdir -p $$(@D)
	$(CC) $(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) $(LINK_$(1))
endef
$(foreach p,pt2boxd pt2box-intake pt2box-worker,$(eval $(call program_rule,$(p))))
# The libraries that a plugin may name are there before its sandbox closes: none is opened later.
$(B)/libexec/pt2box-ops: $(call obj,proxy/main.c $(PROXY) $(TORCH) $(CONFINE) $(IPC)) $(POLICY_OBJ)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -Wl,--no-as-needed -lm -Wl,--as-needed -lmsgpackc -ldl -lpthread
$(B)/libexec/libtorch_cpu.so: $(RUNTIME_OBJ) $(B)/obj/ipc/node_call.o
	@mkdir -p $(@D)
	$(CXX) -shared $(ALL_LDFLAGS) -Wl,-soname,libtorch_cpu.so -o $@ $^ $(RUNTIME_LIBS)
# The host of operators in Python: a module for any interpreter from 3.11 on, and what it runs.
$(B)/obj/proxy/python/%.o: private COMMON += $(PYTHON_INCLUDE)
$(B)/libexec/python/_ops.abi3.so: $(call obj,$(wildcard proxy/python/*.c) $(filter-out proxy/dispatcher.c,$(PROXY)) $(CONFINE) $(IPC)) $(POLICY_OBJ)
	@mkdir -p $(@D)
	$(CC) -shared $(ALL_LDFLAGS) -o $@ $^ -lmsgpackc -ldl -lpthread
$(B)/libexec/python/%.py: proxy/python/%.py
	@mkdir -p $(@D)
	cp $< $@
$(B)/libexec/python/ops.py: python/pt2box/ops.py
	@mkdir -p $(@D)
	cp $< $@
$(B)/pt2boxd: $(B)/libexec/pt2boxd
	ln -sf libexec/pt2boxd $@
$(B)/pt2box.pc: client/pt2box.pc.in $(B)/places
	@mkdir -p $(@D)
	sed -e 's|@prefix@|$(prefix)|;s|@libdir@|$(libdir)|;s|@includedir@|$(includedir)|;s|@version@|$(VERSION)|' $< > $@
$(B)/pt2boxd.service: broker/pt2boxd.service.in $(B)/places
	@mkdir -p $(@D)
	sed -e 's|@private@|$(PRIVATE)|' $< > $@

# ---- layers: programs from which some can be left out (confine/test_layers.h), for tests only ------------------------

L := $(B)/tests/layers
LAYERED := $(shell grep -ls 'confine/test_layers.h"' confine/*.c broker/*.c worker/*.c)
$(L)/obj/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -DPB_TEST_LAYERS -MMD -MP -c -o $@ $<
layered = $(foreach o,$(call obj,$(1)),$(if $(filter $(LAYERED),$(patsubst $(B)/obj/%.o,%.c,$(o))),$(patsubst $(B)/obj/%,$(L)/obj/%,$(o)),$(o)))
define layered_rule
$(L)/libexec/$(1): $(call layered,$(PARTS_$(1))) $(POLICY_OBJ) worker/exports.list
	@mkdir -p $$(@D)
	$(CC) $(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) $(LINK_$(1))
endef
$(foreach p,pt2boxd pt2box-intake pt2box-worker,$(eval $(call layered_rule,$(p))))
$(L)/libexec/libtorch_cpu.so: $(B)/libexec/libtorch_cpu.so
	@mkdir -p $(@D)
	ln -sf ../../../libexec/libtorch_cpu.so $@
LAYERED_PROGRAMS := $(addprefix $(L)/libexec/,pt2boxd pt2box-intake pt2box-worker libtorch_cpu.so)

# ---- the Python package ---------------------------------------------------------------------------------------------

python: ready ## the Python package, in build/python (PYTHONPATH=build/python)
	@$(SUBMAKE) programs $(PYTHON_PARTS)
$(B)/obj/python/%.o: private COMMON += $(PYTHON_INCLUDE)
$(B)/python/pt2box/_core.abi3.so: $(call obj,$(wildcard python/src/*.c)) $(B)/libpt2box.a
	@mkdir -p $(@D)
	$(CC) -shared $(ALL_LDFLAGS) -Wl,--exclude-libs,ALL -o $@ $^ -lmsgpackc -ljansson -lpthread
# Byte code, so that the first import is as quick as all others.
$(B)/python/compiled: $(patsubst python/%,$(B)/python/%,$(wildcard python/pt2box/*.py))
	$(PYTHON3) -m compileall -q $(B)/python/pt2box
	@touch $@
$(B)/python/pt2box/libexec:
	@mkdir -p $(@D)
	ln -sfn ../../libexec $@
$(B)/python/pt2box/%: python/pt2box/%
	@mkdir -p $(@D)
	cp $< $@

# ---- tests ----------------------------------------------------------------------------------------------------------

# Plugins, as their authors compile them.
PLUGINS := $(patsubst tests/%.c,$(B)/tests/%.so,$(wildcard tests/plugins/*.c))
$(B)/tests/plugins/%.so: tests/plugins/%.c $(wildcard tests/plugins/*.h) include/pt2box_op.h $(B)/flags
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -Wall -Wextra $(if $(dev),-Werror) -g -O1 -fPIC -fvisibility=hidden $(SANFLAGS) -shared -I. -o $@ $<
$(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/unit/proxy/test_*.c)): | $(PLUGINS)

.SECONDEXPANSION:
$(B)/tests/fuzz/%: $(B)/obj/tests/fuzz/%.o $$(call units,$$*)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $(if $(fuzz),-fsanitize=fuzzer) $(call own_ldflags,tests/fuzz/$*.c) -o $@ $(call grouped,$^) $(TEST_LIBS)
$(B)/tests/unit/%: $(B)/obj/tests/unit/%.o $$(call units,$$*)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $(call own_ldflags,tests/unit/$*.c) -o $@ $(call grouped,$^) $(TEST_LIBS)
$(B)/tests/%: $(B)/obj/tests/%.o $$(call units,all)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) $(call own_ldflags,tests/$*.c) -o $@ $(call grouped,$^) $(TEST_LIBS)
$(B)/bench/%: $(B)/obj/bench/%.o $(B)/libpt2box.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ -lmsgpackc -ljansson -lpthread -lm
# As PyTorch links a package: undefined symbols of libtorch_cpu.so, which is an empty file here.
$(B)/tests/hostile/stub/libtorch_cpu.so:
	@mkdir -p $(@D)
	$(CC) -shared -Wl,-soname,libtorch_cpu.so -o $@ -x c /dev/null
define hostile_rule
$(B)/tests/hostile/%.$(1).so: tests/hostile/%.c tests/hostile/base.h ipc/lane.h $(B)/tests/hostile/stub/libtorch_cpu.so
	@$(CC) -std=gnu17 -Wall -Wextra $(if $(dev),-Werror) -O1 -fPIC -fvisibility=hidden -shared -I. -D_GNU_SOURCE -DAT=$(1) \
		-o $$@ $$< -Wl,--no-as-needed -L$(B)/tests/hostile/stub -ltorch_cpu -Wl,--as-needed $$(call own_ldflags,$$<)
endef
$(foreach at,0 1 2 3,$(eval $(call hostile_rule,$(at))))
$(INTEG): | programs $(HOSTILE) $(PLUGINS) $(LAYERED_PROGRAMS)

.PHONY: check check-unit check-layers check-headers check-docs check-torch fuzz lint
# Checks and replays count as tests: one closing line says it all.
RUN = B=$(B) tools/run-tests.sh
CHECKS := 'tools/check-layers.sh' 'tools/check-headers.sh $(CC) $(CXX)' 'tools/check-docs.sh $(B)'
check: ready ## build and run every test (no torch needed)
	@$(SUBMAKE) tests-build
	@$(RUN) $(CHECKS) $(FUZZ) $(UNIT) $(INTEG) $(if $(san)$(fuzz),,$(PYTESTS))
check-unit: ready ## unit tests and corpora only (what the sanitizer build runs)
	@$(SUBMAKE) $(UNIT) $(FUZZ) $(LIBRARIES)
	@$(RUN) $(FUZZ) $(UNIT)
check-layers: ## who may include whom
	@tools/check-layers.sh
check-headers: ready ## every header compiles alone, public ones as C99 and C++
	@tools/check-headers.sh $(CC) $(CXX)
check-docs: $(B)/host/docgen ## generated pages are up to date
	@tools/check-docs.sh $(B)
NAMED := $(B)/tests/torch/named.so
$(NAMED): $(call obj,tests/torch/named.c broker/intake/nodes.c broker/intake/arena.c worker/nodes.c worker/ops.c $(IPC))
	@mkdir -p $(@D)
	$(CC) -shared $(ALL_LDFLAGS) -o $@ $^ -ljansson -lmsgpackc -ldl
check-torch: all python $(NAMED) $(B)/tests/integration/test_hostile ## with torch 2.13.0 (PYTHON=...): remake the fixtures and compare; operators against eager
	@tools/check-torch.sh $(B) $(PYTHON)
.PHONY: soak
soak: ready ## everything at once, and everything but the broker killed at random, for T=30 minutes
	@$(SUBMAKE) programs $(PYTHON_PARTS) $(HOSTILE)
	@B=$(B) $(PYTHON3) tests/soak/soak.py --minutes $(or $(T),30)
.PHONY: check-model
check-model: ## the lane protocol (docs/lane.pml) with spin
	@tools/check-model.sh
fuzz: ready-lint ## fuzz every decoder with libFuzzer, FUZZ_SECONDS=60 each
	@tools/fuzz.sh
lint: ready-lint ## cppcheck and scan-build
	@tools/lint.sh

# ---- demo, bench, install -------------------------------------------------------------------------------------------

.PHONY: demo bench docs matrix cycles install uninstall compile_commands format clean help
DEMO_HOSTILE := $(foreach m,segfault socket_tcp execve,$(B)/tests/hostile/$(m).3.so)
demo: ready ## run real packages, then hostile ones, and show what happened
	@$(SUBMAKE) programs $(B)/tests/tools/demo $(DEMO_HOSTILE)
	@tools/demo.sh $(B)
bench: ready ## print the figures of the README as ratios in one run
	@$(SUBMAKE) programs $(TOOLS) $(BENCHES) $(PYTHON_PARTS)
	@tools/bench.sh $(B) $(PYTHON)
matrix: ready ## every attack with every layer left out (root, some minutes): tests/matrix.def, and from it docs/SECURITY.md
	@$(SUBMAKE) $(LAYERED_PROGRAMS) $(HOSTILE) $(B)/tests/tools/matrix $(B)/host/docgen
	@B=$(B) $(B)/tests/tools/matrix > $(B)/matrix.def
	@cp $(B)/matrix.def tests/matrix.def
	@rm -f $(B)/host/docgen
	@$(SUBMAKE) docs
cycles: ready ## CYCLES=10000 crashes of one broker's models, what that leaves; what the filters cost a call
	@$(SUBMAKE) programs $(LAYERED_PROGRAMS) $(HOSTILE) $(B)/tests/tools/crash_cycles $(B)/tests/tools/filter_cost
	@B=$(B) $(B)/tests/tools/filter_cost
	@B=$(B) $(B)/tests/tools/crash_cycles $(or $(CYCLES),10000)
docs: $(B)/host/docgen ## regenerate docs/PROTOCOL.md, docs/OPS.md and the tables of docs/SECURITY.md
	@tools/check-docs.sh $(B) --write
install: all ## honours DESTDIR and prefix
	install -d $(DESTDIR)$(bindir) $(DESTDIR)$(libdir)/pkgconfig $(DESTDIR)$(includedir) $(DESTDIR)$(PRIVATE)/python $(DESTDIR)$(mandir)/man1 $(DESTDIR)$(unitdir)
	install -m755 $(B)/pt2box $(DESTDIR)$(bindir)/
	install -m755 $(B)/libexec/pt2boxd $(B)/libexec/pt2box-worker $(B)/libexec/pt2box-intake $(B)/libexec/pt2box-ops $(DESTDIR)$(PRIVATE)/
	install -m644 $(B)/libexec/libtorch_cpu.so $(DESTDIR)$(PRIVATE)/
	install -m644 $(PYTHON_HOST) $(DESTDIR)$(PRIVATE)/python/
	ln -srf $(DESTDIR)$(PRIVATE)/pt2boxd $(DESTDIR)$(bindir)/pt2boxd
	install -m644 $(B)/libpt2box.a $(DESTDIR)$(libdir)/
	install -m755 $(B)/libpt2box.so.$(VERSION) $(DESTDIR)$(libdir)/
	ln -sf libpt2box.so.$(VERSION) $(DESTDIR)$(libdir)/libpt2box.so.$(SOMAJOR)
	ln -sf libpt2box.so.$(VERSION) $(DESTDIR)$(libdir)/libpt2box.so
	install -m644 include/pt2box.h include/pt2box_op.h $(DESTDIR)$(includedir)/
	install -m644 $(B)/pt2box.pc $(DESTDIR)$(libdir)/pkgconfig/
	install -m644 $(wildcard docs/*.1) $(DESTDIR)$(mandir)/man1/
	install -m644 $(B)/pt2boxd.service broker/pt2boxd.socket $(DESTDIR)$(unitdir)/
	install -d $(DESTDIR)$(docdir) && install -m644 docs/pt2box.conf $(DESTDIR)$(docdir)/
	@[ -n "$(DESTDIR)" ] || ldconfig 2>/dev/null || :
uninstall: ## what install put there, with the same DESTDIR and prefix
	rm -f $(addprefix $(DESTDIR)$(bindir)/,pt2box pt2boxd) $(DESTDIR)$(includedir)/pt2box.h $(DESTDIR)$(includedir)/pt2box_op.h $(DESTDIR)$(libdir)/pkgconfig/pt2box.pc
	rm -f $(DESTDIR)$(libdir)/libpt2box.a $(addprefix $(DESTDIR)$(libdir)/libpt2box.so,.$(VERSION) .$(SOMAJOR)) $(DESTDIR)$(libdir)/libpt2box.so
	rm -f $(addprefix $(DESTDIR)$(mandir)/man1/,$(notdir $(wildcard docs/*.1)))
	rm -f $(addprefix $(DESTDIR)$(unitdir)/,pt2boxd.service pt2boxd.socket)
	rm -f $(DESTDIR)$(docdir)/pt2box.conf; rmdir $(DESTDIR)$(docdir) 2>/dev/null || :
	rm -rf $(DESTDIR)$(PRIVATE)
compile_commands: ## compile_commands.json for editors
	@tools/compile-commands.sh
format: ready-lint ## clang-format everything
	clang-format -i $(wildcard include/*.h $(foreach d,ipc confine broker worker torch proxy client runtime python tests bench tools,$(d)/*.[ch] $(d)/*/*.[ch] $(d)/*/*/*.[ch]))
clean: ## remove build/
	rm -rf build compile_commands.json
help: ## this list
	@sed -n 's/^\([a-z_-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | sort | expand -t 22
	@echo "Options: dev=1 (warnings are errors), san=address,undefined, prefix=DIR, DESTDIR=DIR, T=MINUTES (soak), FUZZ_SECONDS=N, BENCH_ARGS=..., PYTHON=..., TESTS=word, -jN"

-include $(shell find $(B) \( -path build/san -o -path build/fuzz -o -path build/lint \) ! -path '$(B)' -prune -o -name '*.d' -print 2>/dev/null)
