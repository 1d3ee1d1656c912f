/* huge.h - when memory for the heap is made in pages of 2 MiB; the words for it (config-keys.c). */
#pragma once

enum tgd_huge_mode {
	TGD_HUGE_AUTO, /* where it costs no more memory, or little against what the heap has */
	TGD_HUGE_NEVER,
	TGD_HUGE_ALWAYS, /* all of it: a small heap has 2 MiB, too */
	TGD_HUGE_MODES
};

extern const char *const tgd_huge_names[TGD_HUGE_MODES];
