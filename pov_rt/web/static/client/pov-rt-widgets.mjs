export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-OEBDWP6R.mjs";
