/* control.h - what keeper and worker say to each other while both live. */
#pragma once

#include <stddef.h>

#define TGD_CONTROL_TEXT 512

/* Worker to keeper:
 *   files             the heap is made; with map and heap
 *   ready             it serves; text: its version
 *   upgrade           be replaced; with the program; text: its path
 *   ended             it ends, and all with it; text: "signal", or "request": the heap is not wanted
 *                     any more
 *   retired           it ends, the next may start
 *   refused           the memory files are not what it can serve; text: why
 * Keeper to worker:
 *   keeper            text: its pid
 *   retire            answer what you have read, and end
 */
struct tgd_control_message {
	char word[16];
	char text[TGD_CONTROL_TEXT];
	int fds[2]; /* the receiver's */
	size_t n_fds;
};

/* A pair of connected sockets that do not block and keep messages apart.  0 or -errno. */
int tgd_control_pair(int ret[2]);

/* Sends a message at once, or not at all: 0 or -errno.  The descriptors stay the caller's. */
int tgd_control_send(int socket, const char *word, const char *text, const int *fds, size_t n_fds);

/* 1: a message; 0: the other one has closed its end; -EAGAIN: there is none now; or -errno. */
int tgd_control_receive(int socket, struct tgd_control_message *ret);
