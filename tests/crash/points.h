/* points.h - makes each store, atomic operation, fence and message of a program a place where it can be killed.
 *
 * Compiled into shm/, client/ and daemon/ before everything else (-include), for the crash tests alone.  Each of the
 * operations below first calls tgt_point with what describes the place in the source (the site), which lies in a section
 * of its own, so that all sites of a program can be listed.  Loads are no points: killed before or after one is the same.
 * Calls to the kernel that others see the effect of are points too, since a process dies between them just as well.
 */
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Its size is its alignment, so that the section is an array. */
struct tgt_site {
	const char *file;
	const char *what;
	uint32_t line;
	uint32_t reserved[3];
} __attribute__((aligned(32)));
_Static_assert(sizeof(struct tgt_site) == 32, "no holes in the section");

/* The process is about to do what the site says, at `address` (NULL: to no memory in particular).  Does not come back
 * where the process is to be killed. */
void tgt_point(const struct tgt_site *site, const volatile void *address);

#ifndef TGT_NO_POINTS
#define TGT_POINT_AT(text, address)                                                       \
	__extension__({                                                                   \
		static struct tgt_site tgt_here __attribute__((section("tg_points"))) = { \
			.file = __FILE__, .what = text, .line = __LINE__};                \
		tgt_point(&tgt_here, (address));                                          \
	})

#define TGS_POINT() TGT_POINT_AT("plain store", NULL)

#undef atomic_store_explicit
#define atomic_store_explicit(object, value, order)            \
	__extension__({                                        \
		__auto_type tgt_store = (object);              \
		TGT_POINT_AT("store", tgt_store);              \
		__atomic_store_n(tgt_store, (value), (order)); \
	})

#undef atomic_exchange_explicit
#define atomic_exchange_explicit(object, value, order)               \
	__extension__({                                              \
		__auto_type tgt_exchange = (object);                 \
		TGT_POINT_AT("exchange", tgt_exchange);              \
		__atomic_exchange_n(tgt_exchange, (value), (order)); \
	})

#undef atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_strong_explicit(object, expected, desired, success, failure) \
	__extension__({                                                                      \
		__auto_type tgt_swap = (object);                                             \
		TGT_POINT_AT("compare-exchange", tgt_swap);                                  \
		__atomic_compare_exchange_n(tgt_swap, (expected), (desired), 0, (success),   \
					    (failure));                                      \
	})

#undef atomic_compare_exchange_weak_explicit
#define atomic_compare_exchange_weak_explicit(object, expected, desired, success, failure) \
	__extension__({                                                                    \
		__auto_type tgt_swap = (object);                                           \
		TGT_POINT_AT("compare-exchange", tgt_swap);                                \
		__atomic_compare_exchange_n(tgt_swap, (expected), (desired), 1, (success), \
					    (failure));                                    \
	})

#undef atomic_fetch_add_explicit
#define atomic_fetch_add_explicit(object, value, order)        \
	__extension__({                                        \
		__auto_type tgt_add = (object);                \
		TGT_POINT_AT("add", tgt_add);                  \
		__atomic_fetch_add(tgt_add, (value), (order)); \
	})

#undef atomic_fetch_sub_explicit
#define atomic_fetch_sub_explicit(object, value, order)        \
	__extension__({                                        \
		__auto_type tgt_sub = (object);                \
		TGT_POINT_AT("sub", tgt_sub);                  \
		__atomic_fetch_sub(tgt_sub, (value), (order)); \
	})

#undef atomic_fetch_or_explicit
#define atomic_fetch_or_explicit(object, value, order)       \
	__extension__({                                      \
		__auto_type tgt_or = (object);               \
		TGT_POINT_AT("or", tgt_or);                  \
		__atomic_fetch_or(tgt_or, (value), (order)); \
	})

#undef atomic_fetch_and_explicit
#define atomic_fetch_and_explicit(object, value, order)        \
	__extension__({                                        \
		__auto_type tgt_and = (object);                \
		TGT_POINT_AT("and", tgt_and);                  \
		__atomic_fetch_and(tgt_and, (value), (order)); \
	})

#undef atomic_thread_fence
#define atomic_thread_fence(order)            \
	__extension__({                       \
		TGT_POINT_AT("fence", NULL);  \
		__atomic_thread_fence(order); \
	})

/* The kernel's part of it. */
#define TGT_POINT_CALL(call, ...)          \
	__extension__({                    \
		TGT_POINT_AT(#call, NULL); \
		(call)(__VA_ARGS__);       \
	})
#define sendmsg(...)   TGT_POINT_CALL(sendmsg, __VA_ARGS__)
#define recvmsg(...)   TGT_POINT_CALL(recvmsg, __VA_ARGS__)
#define fallocate(...) TGT_POINT_CALL(fallocate, __VA_ARGS__)
#define pwritev(...)   TGT_POINT_CALL(pwritev, __VA_ARGS__)

/* Of the daemon, whose processes make and follow each other: between two of these one of them may be alone. */
#ifdef TGT_PROCESS_POINTS
#include <sys/wait.h>
#define fork(...)    TGT_POINT_CALL(fork, __VA_ARGS__)
#define fexecve(...) TGT_POINT_CALL(fexecve, __VA_ARGS__)
#define waitid(...)  TGT_POINT_CALL(waitid, __VA_ARGS__)
#define waitpid(...) TGT_POINT_CALL(waitpid, __VA_ARGS__)
#define bind(...)    TGT_POINT_CALL(bind, __VA_ARGS__)
#define listen(...)  TGT_POINT_CALL(listen, __VA_ARGS__)
#define unlink(...)  TGT_POINT_CALL(unlink, __VA_ARGS__)
#endif
#endif /* TGT_NO_POINTS */
