/* SPDX-License-Identifier: MIT
 *
 * objc_call.h: messages to classes that no header declares.
 *
 *     KILN_SEND(BOOL, (id, SEL, id), receiver, selector, argument)
 *
 * sends `selector` with the types given: result first, then those of receiver, selector and
 * arguments. Apple's runtime has one function that sends; the GNU runtime looks the method up and
 * the caller calls it. A nil receiver gives 0 on both, a receiver without the method raises.
 */
#ifndef KILN_DEVICE_ANE_OBJC_CALL_H
#define KILN_DEVICE_ANE_OBJC_CALL_H

#include <objc/message.h>

#ifdef __APPLE__
#define KILN_METHOD(receiver, selector) objc_msgSend
#else
#define KILN_METHOD(receiver, selector) objc_msg_lookup((receiver), (selector))
#endif

/* Through void (*)(void): that a method has another type than the function is the point. */
#define KILN_SEND(result, types, receiver, selector, ...)                                       \
    (((result(*) types)(void (*)(void))KILN_METHOD(receiver, selector))((receiver), (selector), \
                                                                        ##__VA_ARGS__))

#endif
