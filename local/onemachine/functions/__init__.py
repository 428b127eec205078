"""Lambda functions on one machine, under the runtime client that Lambda itself uses for Python."""

from onemachine.functions.definition import (
    ACCOUNT_ID as ACCOUNT_ID,
)
from onemachine.functions.definition import (
    DEFAULT_REGION as DEFAULT_REGION,
)
from onemachine.functions.definition import (
    MAX_PAYLOAD_BYTES as MAX_PAYLOAD_BYTES,
)
from onemachine.functions.definition import (
    Function as Function,
)
from onemachine.functions.definition import (
    FunctionFailedError as FunctionFailedError,
)
from onemachine.functions.definition import (
    Observe as Observe,
)
from onemachine.functions.definition import (
    Result as Result,
)
from onemachine.functions.definition import (
    Ship as Ship,
)
from onemachine.functions.definition import (
    ThrottledError as ThrottledError,
)
from onemachine.functions.definition import (
    function_arn as function_arn,
)
from onemachine.functions.definition import (
    unobserved as unobserved,
)
from onemachine.functions.own_modules import OwnModules as OwnModules
from onemachine.functions.pools import Functions as Functions
