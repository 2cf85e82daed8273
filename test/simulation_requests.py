# SPDX-License-Identifier: Apache-2.0
"""Requests of simulation_interfaces as 2.1 has them, for whichever version is installed."""

SINCE_2_1 = ('world_resource', 'set_pose', 'set_twist', 'set_acceleration')


def fitting(known, fields):
    """
    Translate the fields of a request.

    Before 2.1 what is in ``world_resource`` stands beside it, and an entity is given pose and
    twist without flags.

    :param known: names of the fields that the installed type has
    :param fields: name -> value, of 2.1; ``world_resource`` as a dictionary or as a message
    :return: the same request in fields that the type has; other unknown ones are left alone
    """
    resource = fields.get('world_resource')
    if resource is not None and 'world_resource' not in known:
        if not isinstance(resource, dict):
            resource = {name: getattr(resource, name)
                        for name in resource.get_fields_and_field_types()}
        fields = {**fields, **resource}
    return {name: value for name, value in fields.items()
            if name in known or name not in SINCE_2_1}
