/* SPDX-License-Identifier: MIT
 *
 * status.h: how every kiln function that can fail says so.
 *
 * A function that can fail for a reason outside the code returns enum kiln_status and takes a
 * struct kiln_err as its last parameter (may be NULL). The first failure fills it; callers only
 * forward. A message says what was tried, on what, what was found and how to mend it. Nothing in
 * the library prints or exits.
 */
#ifndef KILN_STATUS_H
#define KILN_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KILN_API                     __attribute__((visibility("default")))
#define KILN_PRINTF(fmt_at, args_at) __attribute__((format(printf, fmt_at, args_at)))
#define KILN_MUST_CHECK              __attribute__((warn_unused_result))
#define KILN_NULL_AT_END             __attribute__((sentinel))
#else
#define KILN_API
#define KILN_PRINTF(fmt_at, args_at)
#define KILN_MUST_CHECK
#define KILN_NULL_AT_END
#endif

/* name, value, what it means for the caller */
#define KILN_STATUS_MAP(XX)                                                                   \
    XX(OK, 0, "done")                                                                         \
    XX(EUSAGE, -1, "an option or argument is wrong whatever the files hold; mend the call")   \
    XX(EINPUT, -2, "a file or its contents cannot be used; mend or replace the file")         \
    XX(EIO, -3, "the system refused a read, write, map or lock; free space or rights, retry") \
    XX(ENOMEM, -4, "not enough memory; ask for less")                                         \
    XX(EBUDGET, -5, "a compile or load budget is spent, nothing has changed; restart")        \
    XX(EDIVERGED, -6, "a loss or gradient is not a finite number; lower the rate or resume")  \
    XX(EINTERRUPTED, -7, "stopped on request; the state is saved and can be resumed")         \
    XX(EUNSUPPORTED, -8, "this machine or build cannot do it; the message names what can")    \
    XX(EEXISTS, -9, "the target exists and is not overwritten; choose another or resume")     \
    XX(EBUSY, -10, "another process owns it; wait or stop that one")                          \
    XX(EDAMAGED, -11, "a file of ours fails its checks; use the newest checkpoint")           \
    XX(EINTERNAL, -12, "a fault in kiln itself; please report the message")                   \
    XX(EUNTRUSTED, -13, "a power cut may have mixed the file; use the newest checkpoint")     \
    XX(ERESTART, -14, "the budget of this process is spent; hand over to a fresh one")        \
    XX(EDEVICE, -15, "a device call failed; the message has the device's own words")          \
    XX(ELOST, -16, "another process of the run is gone; resume it with those there are")

enum kiln_status {
#define KILN_STATUS_ENUM(name, value, text) KILN_##name = value,
    KILN_STATUS_MAP(KILN_STATUS_ENUM)
#undef KILN_STATUS_ENUM
};

/* Where and why a call failed. Caller's storage; zero it or not, a failure overwrites it. */
struct kiln_err {
    enum kiln_status code;
    char message[640];
    const char *file; /* source file and line of the failure, for debugging */
    int line;
};

/* The short meaning of a status, as listed above; never NULL. */
KILN_API const char *kiln_status_text(enum kiln_status status);

/* "KILN_EINPUT" and so on; never NULL. */
KILN_API const char *kiln_status_name(enum kiln_status status);

/* Fill `err` (when not NULL) and return `code`. Use through KILN_FAIL. */
KILN_API enum kiln_status kiln_fail(struct kiln_err *err, enum kiln_status code, const char *file,
                                    int line, const char *fmt, ...) KILN_PRINTF(5, 6);

/* Fill `err` and yield the code: `return KILN_FAIL(err, KILN_EINPUT, "model %s: ...", path);` */
#define KILN_FAIL(err, code, ...) kiln_fail((err), (code), __FILE__, __LINE__, __VA_ARGS__)
#ifdef __clang_analyzer__ /* which cannot see that kiln_fail returns the code it is given */
#undef KILN_FAIL
#define KILN_FAIL(err, code, ...) \
    (kiln_fail((err), (code), __FILE__, __LINE__, __VA_ARGS__), (code))
#endif

/* What is made under the temporary name `from` will be called `to`: so does the message, from now
 * on. err may be NULL. */
KILN_API void kiln_err_rename(struct kiln_err *err, const char *from, const char *to);

/* Forward a failure to the caller. For functions that hold nothing to clean up. */
#define KILN_TRY(call)                             \
    do {                                           \
        enum kiln_status kiln_try_status = (call); \
        if (kiln_try_status != KILN_OK) {          \
            return kiln_try_status;                \
        }                                          \
    } while (0)

/* Return a failure unless `cond` holds. */
#define KILN_REQUIRE(cond, err, code, ...)                \
    do {                                                  \
        if (!(cond)) {                                    \
            return KILN_FAIL((err), (code), __VA_ARGS__); \
        }                                                 \
    } while (0)

#ifdef __cplusplus
}
#endif

#endif
